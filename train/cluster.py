"""Ray Data, for corpora beyond one machine: the same functions mapped over the same rows, on a cluster instead of this machine's cores.

An optional extra (requirements-ray.txt). Repository, checkpoints and data must lie at the same paths on every machine; what is made comes back to
the machine that asked and is written there, so a cache looks the same however it was filled.
"""

from __future__ import annotations

import argparse
import os
import pickle
from itertools import islice
from pathlib import Path
from typing import Callable, Iterable, Iterator

from msademo.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 2000                # items sent at a time: they lie in memory here until they are done
LOCAL = "local"


class Cluster:
    """A running Ray cluster, or one of this machine's cores alone ("local")."""

    def __init__(self, address: str):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")           # tells nobody about the run
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise InputError("--ray needs Ray Data, which is not installed; run pip install -r requirements-ray.txt, or leave --ray out.") from error
        places = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        seen = {"env_vars": {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}}
        try:
            ray.init(address=address, runtime_env=seen, log_to_driver=False, ignore_reinit_error=True, **({"include_dashboard": False} if address == LOCAL else {}))
        except Exception as error:                                      # Ray raises bare ones too
            raise InputError(f"Ray cannot work at {address!r} ({str(error).strip().splitlines()[0][:160]}); start a cluster with ray start and name its address, or "
                             "leave --ray out.") from error
        ray.data.DataContext.get_current().enable_progress_bars = False
        self.data = ray.data

    def map(self, function: Callable, items: Iterable) -> Iterator[tuple[int, object]]:
        """function(item) of every item with the item's place, as they are done. Items and results are pickled between our own processes."""
        rest, first = iter(items), 0
        while block := list(islice(rest, BLOCK)):
            rows = [{"place": place, "item": pickle.dumps(item)} for place, item in enumerate(block, start=first)]
            found = self.data.from_items(rows, override_num_blocks=min(len(rows), 256)).map(Called(function))
            for row in found.iter_rows():
                yield row["place"], pickle.loads(row["result"])
            first += len(block)


class Called:
    """A function as Ray Data maps it over rows."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, row: dict) -> dict:
        return {"place": row["place"], "result": pickle.dumps(self.function(pickle.loads(row["item"])))}


def add_ray_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ray", nargs="?", const=LOCAL, metavar="ADDRESS",
                        help="work on a Ray cluster: auto, or HOST:PORT; alone, on this machine's cores (pip install -r requirements-ray.txt)")

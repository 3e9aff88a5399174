"""Several processes, slices of a batch, precision and determinism: each against what one process computes on whole batches."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from msademo.checkpoint import read_checkpoint
from msademo.errors import InputError
from msademo.models.spro import SPRO, PostBatch, SPROConfig
from tests.conftest import ROOT
from tests.pickle_support import write_mmsa
from tests.test_pickled import PGMF_SMALL, SMALL
from tests.test_spro import SMALL as SPRO_SMALL
from tests.towers import TinyImage, TinyText
from train.__main__ import main
from train.execution import Execution
from train.face import FaceTask
from train.loop import Schedule, fingerprint, fit
from train.processes import Share, Sliced
from train.recipes import read_recipe

ROWS = 16           # two batches of 7 and one of 2: slices differ in size, and one of three is empty


@pytest.fixture(scope="module")
def mosi(tmp_path_factory):
    return write_mmsa(tmp_path_factory.mktemp("mosi") / "unaligned_9.pkl", counts=(ROWS, 8, 4))


def command(method, mosi, folder, *more, settings=()):
    """Without dropout, whose numbers differ from slice to slice."""
    small = [*(SMALL + (PGMF_SMALL if method.startswith("pgmf") else [])), "batch=7", "seeds=1", "draws=1", "model.dropout=0"]
    others = {"pgmf-teacher": ["--without-prompt"], "pgmf-student": ["--teacher", str(folder / "pgmf-teacher")]}.get(method, [])
    return [method, "--config", "mosi", "--pickle", str(mosi), "--out", str(folder / method), "--rates", "0", *others, *more, "--set", *small, *settings]


def checkpoint(folder, method="pglh"):
    return read_checkpoint(folder / method / "seed-1" / "model.safetensors")


def same_run(one, other, within: float = 2e-5):
    """Losses and figures of every epoch agree within rounding. (Single weights whose gradient is nothing but rounding go where AdamW takes them.)"""
    assert len(one.meta["history"]) == len(other.meta["history"]) == 2
    for a, b in zip(one.meta["history"], other.meta["history"]):
        assert a.keys() == b.keys() and all(a[name] == pytest.approx(b[name], abs=within) for name in a), (a, b)


@pytest.fixture(scope="module")
def alone(mosi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    for method in ("pglh", "pgmf-teacher", "pgmf-student"):
        assert main(command(method, mosi, folder)) == 0
    return folder


def test_two_processes_do_what_one_does_and_end_together(mosi, alone, tmp_path):
    commands = [command(method, mosi, tmp_path) for method in ("pglh", "pgmf-teacher", "pgmf-student")]
    commands.append(command("pglh", mosi, tmp_path, settings=("epochs=2",)))             # once more: every process finds it done
    found = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.together", json.dumps(commands)],
                           cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500)
    assert "process 1 fails" in found.stderr, found.stderr
    for method in ("pglh", "pgmf-teacher", "pgmf-student"):
        same_run(checkpoint(alone, method), checkpoint(tmp_path, method))
        assert checkpoint(tmp_path, method).meta["schedule"]["execution"]["processes"] == 2
    assert found.returncode != 0 and "never said" not in found.stdout
    assert found.stdout.count("pglh: epoch 1/2") == found.stdout.count("pgmf-student: epoch 2/2") == 1, "process 0 alone tells of the progress"
    assert "pglh: goes on after epoch 2 of 2" in found.stdout


@pytest.mark.parametrize("slices", [2, 3])
def test_slices_of_a_batch_add_up_to_it(mosi, alone, tmp_path, slices):
    assert main(command("pglh", mosi, tmp_path, "--accumulate", str(slices))) == 0
    same_run(checkpoint(alone), checkpoint(tmp_path))
    assert checkpoint(tmp_path).meta["command"].endswith(f" --accumulate {slices}")


def test_shares_are_disjoint_and_complete():
    for rows, parts in ((7, 3), (2, 3), (64, 8), (1, 4)):
        cut = [Share(parts, range(part, part + 1)).cut(rows) for part in range(parts)]
        assert [i for pieces in cut for piece in pieces for i in range(rows)[piece]] == list(range(rows))
        assert max(len(range(rows)[piece]) for pieces in cut for piece in pieces) <= -(-rows // parts)


def test_spros_losses_add_up_with_all_captions_as_negatives():
    spro = SPRO(SPROConfig(**SPRO_SMALL), TinyText(), TinyImage()).eval()
    torch.manual_seed(3)
    texts = [spro.text.tokenize(words) for words in (["so", "good"], ["bad"], ["it", "is", "there"], ["bad", "dog"], ["dog"])]
    captions, own = spro.pool_captions(["dark", "light", "grey"]), torch.tensor([0, 1, 2, 0, 1])
    patches, hidden, labels = torch.randn(5, 6, 5), torch.zeros(5, 6, dtype=torch.bool), torch.tensor([2, 0, 1, 0, 2])

    def batch(part):
        return PostBatch(spro.text.tokens(*spro.text.stem(texts[part])), patches[part], hidden[part], labels[part], [(captions, own[part])] * 3, 9)

    class Posts(Sliced):
        model = spro

    counts, whole = torch.tensor([5.0]), spro.loss(batch(slice(0, 5)))
    parts = [Posts().model_losses(batch(piece), counts) for piece in (slice(0, 3), slice(3, 5))]
    assert whole["captions"] > 0
    assert all(sum(float(part[name]) for part in parts) == pytest.approx(float(value), abs=1e-5) for name, value in whole.items())


def test_batch_normalisation_is_not_cut(tmp_path):
    task = object.__new__(FaceTask)
    task.name, task.model = "face", torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="face compares the samples of a batch"):
        fit(task, Schedule(execution=Execution(accumulate=2)), tmp_path, say=lambda line: None)


def test_plain_runs_are_marked_as_they_always_were(tmp_path):
    class Any:
        name, model = "any", torch.nn.Linear(2, 1)

    old = {"epochs": 10, "lr": 1e-3, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0, "ema": 0.0, "seed": 1111}
    shapes = {"weight": [1, 2], "bias": [1]}
    assert fingerprint(Any, Schedule(), {"a": 1}) == hashlib.sha256(json.dumps(["any", old, {"a": 1}, shapes], sort_keys=True).encode()).hexdigest()
    marks = {fingerprint(Any, Schedule(execution=Execution(*how)), {"a": 1}) for how in ((), ("fp32",), ("bf16",), ("auto", 2), ("auto", 1, True))}
    assert len(marks) == 5


def test_precision_is_chosen_recorded_and_part_of_the_run(mosi, alone, tmp_path, capsys):
    assert main(command("pglh", mosi, tmp_path, "--precision", "bf16")) == 0
    half, full = checkpoint(tmp_path), checkpoint(alone)
    assert half.meta["schedule"]["execution"]["precision"] == "bf16" and full.meta["schedule"]["execution"]["precision"] == "auto"
    assert 0 < abs(half.meta["history"][0]["loss"] - full.meta["history"][0]["loss"]) < 0.1 and all(np.isfinite(list(row.values())).all() for row in half.meta["history"])
    assert main(command("pglh", mosi, tmp_path, settings=("precision=bf16", "epochs=2"))) == 0 and "goes on after epoch 2 of 2" in capsys.readouterr().out
    assert main(command("pglh", mosi, tmp_path)) == 2 and "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("given, words", [(("--accumulate", "0"), "at least 1 slice"), (("--set", "precision=fp8"), "fp8"),
                                          pytest.param(("--precision", "fp16"), "no|none here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in fp16"))])
def test_what_cannot_be_executed_is_one_sentence(mosi, tmp_path, capsys, given, words):
    assert main(["pglh", "--config", "mosi", "--pickle", str(mosi), "--out", str(tmp_path), *given]) == 2
    message = capsys.readouterr().err
    assert re.search(words, message) and message.count("\n") == 1


def test_deterministic_runs_are_equal(mosi, alone, tmp_path):
    try:
        for name in ("a", "b"):
            assert main(command("pglh", mosi, tmp_path / name, "--deterministic")) == 0 and torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert main(command("pglh", mosi, tmp_path / "c")) == 0
    a, b, c = (checkpoint(tmp_path / name) for name in "abc")
    assert a.meta["history"] == b.meta["history"] and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert c.meta["history"] == checkpoint(alone).meta["history"], "on the CPU any run is"
    assert read_recipe("pglh", "mosi", ["deterministic=true"]).execution.deterministic and asdict(Schedule())["execution"]["processes"] == 1

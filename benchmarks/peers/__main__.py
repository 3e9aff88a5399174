"""python -m benchmarks.peers: the models of MMSA beside ours, trained and measured on the same composed corpus under the same masks.

MMSA runs in an environment of its own (benchmarks/peers/requirements.txt), asked through files; its predictions are measured by our metrics.
The same command goes on where it was stopped: models and seeds that are done are not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from benchmarks.peers import ours
from benchmarks.peers.data import TRAININGS, Source, cases_of, write_corpus, write_measured
from benchmarks.peers.report import by_transcript, markdown, measure, over_seeds
from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from msademo.features.text import load_text_encoder
from train.evaluate import COMPOSITIONS, parse_rates
from train.export_mmsa import SIGNS
from train.jobs import CACHE

PEERS = ("lf_dnn", "tfn", "lmf", "mfn", "mult", "self_mm", "tfr_net")
TITLES = {"lf_dnn": "LF-DNN", "tfn": "TFN", "lmf": "LMF", "mfn": "MFN", "mult": "MulT", "self_mm": "Self-MM", "tfr_net": "TFR-Net", "pglh": "PGLH", "pgmf-student": "PGMF student"}
RUNNER = Path(__file__).resolve().parent / "mmsa_side" / "run.py"
BATCH = 64                  # clips whose step and forward pass are timed


@dataclass(frozen=True)
class Run:
    """One model with one seed. training: on complete or masked clips; settings: whose hyper-parameters of MMSA, "mosi" or "mosei". Ours have neither."""

    model: str
    seed: int
    training: str = "masked"
    settings: str = "own"

    @property
    def label(self) -> str:
        return f"{self.model}-{self.training}-{self.settings}-{self.seed}"


class Work:
    """Everything that one command works with; `work` holds it, and what is there already is not made again."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.rates = args, parse_rates(args.rates)
        if args.draws < 1 or args.epochs < 0 or not args.seeds:
            raise InputError("--draws must be 1 at least, --epochs not negative.")
        if set(args.models) & set(ours.SHIPPED) and 0 not in self.rates:
            raise InputError("--rates must have 0 in it: a training step of ours has every word as its target.")
        self.source = Source(args.data, args.text, args.face, args.cache, tuple(args.corpora), args.compositions, args.signs)
        encoder = load_text_encoder(args.text)
        self.bench = self.source.bench(encoder, args.split)
        self.cases = list(cases_of(self.rates, args.draws))
        self.measured = args.work / f"{args.split}-{self.source.mark}"
        write_measured(self.measured, self.bench, self.rates, args.draws)
        self.pickles = {training: args.work / f"corpus-{training}-{self.source.mark}.pkl" for training in TRAININGS}
        for training in TRAININGS if set(args.models) & set(PEERS) else ():
            if not self.pickles[training].is_file() and (training in args.trainings or "tfr_net" in args.models):
                write_corpus(self.pickles[training], self.source, training, encoder)
        self.failed: list[dict[str, str]] = []

    def folder(self, run: Run) -> Path:
        capped = f"-{self.args.epochs}-epochs" if self.args.epochs and run.model in PEERS else ""
        return self.args.work / f"{run.label}{capped}-{self.source.mark}"

    def predictions(self, run: Run) -> Path:
        return self.folder(run) / self.args.split

    def done(self, run: Run) -> bool:
        folder = self.folder(run)
        return (folder / "timing.json").is_file() and all((self.predictions(run) / name).is_file() for *_, name in self.cases)

    def peer(self, run: Run) -> None:
        folder = self.folder(run)
        job = {"label": run.label, "model": run.model, "seed": run.seed, "dataset": run.settings, "pickle": str(self.pickles[run.training].resolve()),
               "clean": str(self.pickles["complete"].resolve()), "measured": str(self.measured.resolve()), "folder": str(folder.resolve()),
               "predictions": str(self.predictions(run).resolve()), "cases": [name for *_, name in self.cases], "epochs": self.args.epochs, "batch": BATCH, "threads": torch.get_num_threads()}
        write_atomically(folder / "job.json", json.dumps(job).encode())
        ended = subprocess.run([self.args.python, str(RUNNER), str(folder / "job.json")])
        if ended.returncode or not self.done(run):
            raise InputError(f"its process ended with {ended.returncode}; what it said is above")

    def own(self, run: Run) -> None:
        args, folder = self.args, self.folder(run)
        path = ours.checkpoint_of(run.model, run.seed, folder, args.checkpoints, self.source)
        fusion = ours.load(run.model, path, self.source)
        ours.write_predictions(fusion, self.bench, self.measured, self.predictions(run), self.cases, run.label)
        if not (folder / "timing.json").is_file():
            complete = next(self.measured / name for rate, _, name in self.cases if rate == 0)
            teacher = ours.load("pgmf-teacher", args.checkpoints / ours.TEACHER, self.source) if run.model == "pgmf-student" else None
            found = ours.timing(fusion, teacher, self.bench, self.measured, self.cases[-1], complete, BATCH)
            write_atomically(folder / "timing.json", json.dumps(found).encode())

    def do(self, run: Run) -> bool:
        """Do one run unless it is done or has failed; one that fails stops no other."""
        if any(failure["label"] == run.label for failure in self.failed):
            return False
        if not self.done(run):
            try:
                (self.peer if run.model in PEERS else self.own)(run)
            except (InputError, OSError) as error:
                self.failed.append({"label": run.label, "reason": str(error)})
                print(f"{run.label} gave nothing: {error}", flush=True)
                return False
        return True

    def chosen(self, model: str, training: str) -> str:
        """Whose hyper-parameters: those with the lower error on valid, tried with the first seed."""
        if len(self.args.settings) == 1:
            return self.args.settings[0]
        losses = {}
        for settings in self.args.settings:
            run = Run(model, self.args.seeds[0], training, settings)
            if self.do(run):
                losses[settings] = json.loads((self.folder(run) / "trained.json").read_text())["valid_loss"]
        print(f"{model}-{training}: error on valid with the hyper-parameters of " + ", ".join(f"{key} {value:.4f}" for key, value in losses.items()), flush=True)
        return min(losses, key=losses.get, default=self.args.settings[0])

    def plan(self) -> list[tuple[str, str]]:
        """(model, training) of each line; TFR-Net rebuilds what is missing, so it has nothing to learn from complete clips."""
        pairs = []
        for model in self.args.models:
            pairs += [(model, training) for training in (self.args.trainings if model in PEERS else ["masked"]) if not (model == "tfr_net" and training == "complete")]
        return pairs

    def line(self, model: str, training: str, settings: str, runs: list[Run]) -> dict:
        """What the report tells of runs that differ in their seed."""
        read = lambda run, name: json.loads((self.folder(run) / name).read_text())
        parts = [by_transcript(self.predictions(run), self.cases, self.bench.truth, COMPOSITIONS) for run in runs]
        by_seed = {str(run.seed): measure(self.predictions(run), self.cases, self.bench.truth, COMPOSITIONS) for run in runs}
        rates, mean = over_seeds(by_seed)
        return {"model": TITLES[model], "training": training, "settings": settings, "seeds": by_seed, "rates": rates, "average": mean,
                "transcripts": {name: np.mean([part[name] for part in parts], axis=0).tolist() for name in parts[0]}, "timing": read(runs[0], "timing.json"),
                "trained": {str(run.seed): read(run, "trained.json") for run in runs} if model in PEERS else {}}

    def reports(self) -> Iterator[dict]:
        """The report after each line: who waits sees what there is."""
        pairs, started, lines = self.plan(), time.monotonic(), []
        for number, (model, training) in enumerate(pairs):
            settings = self.chosen(model, training) if model in PEERS else "own"
            runs = [Run(model, seed, training, settings) for seed in self.args.seeds]
            for i, run in enumerate(runs):
                share = (number + i / len(runs)) / len(pairs)
                left = f", ETA {(time.monotonic() - started) * (1 - share) / share / 60:.0f} min" if share else ""
                print(f"peers: {run.label} ({number + 1} of {len(pairs)}, seed {i + 1} of {len(runs)}{left})", flush=True)
                self.do(run)
            runs = [run for run in runs if self.done(run)]
            lines += [self.line(model, training, settings, runs)] if runs else []
            yield {"about": self.about(), "split": self.args.split, "n": len(self.bench.truth), "truth": self.bench.truth.tolist(), "draws": self.args.draws,
                   "compositions": COMPOSITIONS, "models": lines, "failed": self.failed}

    def about(self) -> str:
        args = self.args
        unit, whose = {"balanced": ("epoch", "our trainers' (as many positive as negative clips, MOSI's transcripts twice) from"),
                       "close": ("epoch", "the mixture our trainers end on (as many positive as negative clips, MOSI's transcripts six times, a quarter of MOSEI's) from"),
                       "all": ("composition", "the training transcripts of")}[args.signs]
        drawn = f"{args.compositions} {unit}{'s' * (args.compositions > 1)} of {whose}"
        return (f"Composed corpus, {len(self.bench.truth)} transcripts of MOSI's {args.split} split; means over {COMPOSITIONS} compositions and {args.draws} mask draws a rate, "
                "± the deviation over seeds. Every model reads the same features under the same masks; words are taken away before the text encoder reads them, and the epoch was chosen "
                f"on valid. Peers: MMSA 2.2.1, its trainers and hyper-parameters, {drawn} {' and '.join(args.corpora).upper()}, complete or each masked at a rate of its own; "
                "features standardised, voice and face averaged over the steps left for LF-DNN, TFN, LMF and MFN, padding in front for these and MulT; Self-MM and TFR-Net get our text features in their BERT's place. Ours: the shipped checkpoints (MOSI and MOSEI, signs balanced) for seed 1111, others by the same commands. "
                f"Times: a batch of {BATCH} clips, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}.")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="MMSA's models beside ours, on the same corpus under the same masks.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mosi/, mosei/, voices/ and faces/")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has MMSA (benchmarks/peers/requirements.txt)")
    parser.add_argument("--models", nargs="+", choices=(*PEERS, *ours.SHIPPED), default=[*PEERS, *ours.SHIPPED])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1111, 1112, 1113])
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS), help="what peers are trained on")
    parser.add_argument("--settings", nargs="+", choices=("mosi", "mosei"), default=["mosi", "mosei"], help="whose hyper-parameters of MMSA; of two, those better on valid with the first seed")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--rates", default="0:0.9:0.1")
    parser.add_argument("--draws", type=int, default=10, help="mask draws a rate")
    parser.add_argument("--corpora", nargs="+", choices=("mosi", "mosei"), default=["mosi", "mosei"], help="whose training transcripts the peers get")
    parser.add_argument("--compositions", type=int, default=1, help="training clips a transcript for the peers, or epochs with balanced signs")
    parser.add_argument("--signs", choices=SIGNS, default="balanced", help="the peers' training clips: balanced, as ours begin; close, as ours end (train export-mmsa); all: scores as they come")
    parser.add_argument("--epochs", type=int, default=0, help="most epochs of a peer; 0: until MMSA's trainer stops early")
    parser.add_argument("--work", type=Path, default=Path("runs/peers"), help="where all that is made is kept")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="the shipped checkpoints")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"))
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser


def check_python(python: str) -> None:
    """InputError unless the interpreter has MMSA."""
    needed = f"--python {python} has no MMSA; set up an environment with benchmarks/peers/requirements.txt and give its interpreter."
    if shutil.which(python) is None:
        raise InputError(f"There is no interpreter {python}; give --python one that has benchmarks/peers/requirements.txt installed.")
    if subprocess.run([python, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('MMSA') is None)"]).returncode:
        raise InputError(needed)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    try:
        if set(args.models) & set(PEERS):
            check_python(args.python)
        for report in Work(args).reports():
            write_atomically(args.json, json.dumps(report, indent=1).encode())
            write_atomically(args.markdown, markdown(report).encode())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    print(f"wrote {args.json} and {args.markdown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

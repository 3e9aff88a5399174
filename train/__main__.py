"""python -m train COMMAND ...: one command a job. Each job is a module with `add_arguments(parser)` and `run(args)`."""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from msademo.errors import InputError

COMMANDS = {
    "prepare": ("train.prepare", "extract features of a data folder once, and cache them"),
    "face": ("train.face", "train the expression network on faces"),
    "voice": ("train.voice", "train the voice network on acted voices"),
    "text": ("train.text", "tune the text encoder's upper layers on transcripts with scores"),
    "pglh": ("train.pglh", "train PGLH on the composed corpus or a folder of labelled clips; with --config and --pickle on an MMSA pickle"),
    "spro": ("train.spro", "train SPRO on image-text posts; with --config by a file of train/configs/"),
    "pgmf-teacher": ("train.pgmf_teacher", "train PGMF's teacher, guided by the corpus's prompts; with --config and --pickle on an MMSA pickle"),
    "pgmf-student": ("train.pgmf_student", "distil PGMF's student from a trained teacher; with --config and --pickle on an MMSA pickle"),
    "pgmf-ablation": ("train.pgmf_ablation", "train students with and without each part of their loss, side by side"),
    "ablation": ("train.ablation", "a whole ablation table of a paper on a pickle or a folder, beside the printed figures"),
    "spro-ablation": ("train.spro_ablation", "train SPRO with one part changed at a time, over several seeds, and write the table"),
    "faithfulness": ("train.faithfulness", "hide the patches that SPRO's overlays point at, and as many at random"),
    "baseline": ("train.baseline", "train the mean-pool MLP that the methods are measured against"),
    "guidance": ("train.guidance", "write the prompts of the composed corpus, offline or with a language model"),
    "captions": ("train.captions", "write the stage captions of posts, offline or by a language model"),
    "evaluate": ("train.evaluate", "measure a checkpoint under missing data; with --pickle one that was trained on an MMSA pickle"),
    "export-mmsa": ("train.export_mmsa", "write the composed corpus as an MMSA pickle, for any MMSA-style repository"),
    "table": ("train.table", "tables of runs on MMSA pickles, beside the papers' figures"),
}
# Those that several processes of torchrun or accelerate launch work on together.
TOGETHER = ("face", "text", "pglh", "spro", "pgmf-teacher", "pgmf-student", "baseline")
# The same command with a configuration, or on an MMSA pickle or a folder of labelled clips: another job with arguments of its own.
CONFIGURED = {"pglh": "train.pickled", "pgmf-teacher": "train.pickled", "pgmf-student": "train.pickled", "baseline": "train.pickled",
              "evaluate": "train.evaluate_pickled", "spro": "train.spro_recipe"}
LABELLED = ("labels.csv", "label.csv")              # what a folder of labelled clips has and the composed corpus's has not


def names_classes(table: Path) -> bool:
    """Does a labels.csv begin with a class, as posts have, and not with a score, as clips have?"""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            label = (next(csv.DictReader(file), {}).get("label") or "").strip().lower()
    except (OSError, ValueError, csv.Error):        # whoever reads the whole table tells what is wrong with it
        return False
    return label in ("negative", "neutral", "positive")


def is_configured(words: list[str]) -> bool:
    """Does the command line ask for the other job?"""
    if any(word.split("=")[0] in ("--pickle", "--config") for word in words):
        return True
    probe = argparse.ArgumentParser(add_help=False)
    probe.add_argument("--data", nargs="?")
    data = probe.parse_known_args(words)[0].data
    if not data or "spro" in words:
        return False
    return any((Path(data) / name).is_file() and not ("evaluate" in words and names_classes(Path(data) / name)) for name in LABELLED)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure the models of msademo.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the wanted job is imported: `--help` and a typo should not wait for torch.
    words = sys.argv[1:] if argv is None else argv
    wanted = next((word for word in words if word in COMMANDS), None)
    configured = is_configured(words)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == wanted:
            job = importlib.import_module(CONFIGURED.get(name, module) if configured else module)
            job.add_arguments(command)
            command.set_defaults(run=job.run)
    args = parser.parse_args(argv)
    group, speaks = nullcontext(), lambda: True
    if "WORLD_SIZE" in os.environ:                      # set by a launcher; else torch may not be wanted at all
        from train import processes
        group, speaks = processes.joined(args.command, args.command in TOGETHER), processes.speaks_for_all
    try:
        with group:
            args.run(args)
    except InputError as error:
        if speaks():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last saved epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""python -m train ablation --table pglh-3 --config mosi --pickle FILE: a whole ablation table of a paper, its rows beside the printed ones.

Every row is the method with settings that --set takes as well; the row without any is the full method. Runs that tables share are done once,
and the same command goes on where it stopped. On --data DIR: on a folder of labelled clips, or for spro-3 of posts.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping

from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from train import pickled, spro_ablation
from train.evaluate import parse_rates
from train.execution import given
from train.papers import ERRATA, MEASURED, POST_COLUMNS, TITLES, printed_ablation
from train.recipes import read_recipe
from train.spro_task import SPROSettings
from train.table import Table, shown, spread


@dataclass(frozen=True)
class Line:
    """One row: a method with settings; prompt: is its teacher guided? part: for SPRO, the row of train.spro_ablation."""

    name: str
    method: str
    settings: tuple[str, ...] = ()
    prompt: bool = True
    part: str = ""

    @property
    def folder(self) -> str:
        return "-".join([self.method, *(s.removeprefix("model.") for s in self.settings), *(() if self.prompt else ("without-prompt",))])


def student(name: str, **settings: float) -> Line:
    return Line(name, "pgmf-student", tuple(f"model.{key}={value:g}" for key, value in settings.items()))


def pglh(name: str, **settings: float) -> Line:
    return replace(student(name, **settings), method="pglh")


# The sizes of PGMF's Table 9 are not told; with as many alignment as fusion layers, 1, 2, 4, 6 and 12, its counts come out within 10 % on SIMS.
ROWS = {
    "pglh-3": (pglh("w/o PCM2-Decoder", decoder_layers=0), pglh("w/o PCM2-Prompt", pcm2_prompts=0), pglh("w/o UBPF", ubpf_prompts=0), pglh("PGLH")),
    "pglh-4": (pglh("neither L_global nor L_mask", lambda_global=0, lambda_mask=0), pglh("L_global alone", lambda_mask=0), pglh("L_mask alone", lambda_global=0),
               pglh("L_global and L_mask")),
    "pglh-8": (pglh("lambda_mask 0.025, lambda_global 0.025", lambda_mask=0.025, lambda_global=0.025), pglh("lambda_mask 0.025, lambda_global 0.05", lambda_mask=0.025),
               pglh("lambda_mask 0.05, lambda_global 0.05"), pglh("lambda_mask 0.05, lambda_global 0.1", lambda_global=0.1)),
    "pgmf-4": (Line("PGMF-Teacher", "pgmf-teacher"), Line("w/o prompt", "pgmf-teacher", prompt=False), student("PGMF-Student"),
               student("w/o guidance of teacher", alpha=0, beta=0)),
    "pgmf-5": (student("PGMF-Student"), student("w/o L_attn", alpha=0), student("w/o L_fusion", beta=0), student("w/o L_fusion and L_attn", alpha=0, beta=0)),
    "pgmf-8": tuple(student(f"alpha {alpha}, beta {beta}", alpha=alpha, beta=beta) for alpha, beta in
                    ((60, 8), (80, 8), (40, 8), (20, 8), (0, 8), (60, 10), (60, 6), (60, 4), (60, 2), (60, 0), (0, 0))),
    "pgmf-9": tuple(student(f"PGMF-Student {size}", alignment_layers=depth, fusion_layers=depth) for size, depth in
                    (("0.49M", 1), ("0.82M", 2), ("1.46M", 4), ("2.11M", 6), ("4.05M", 12))),
    "spro-3": tuple(Line(name, "spro", part=part) for name, part in (
        ("w/o Caption Supervision", "no captions"), ("Single-Stage Caption", "single stage"), ("w/o Visual Prompts", "no visual prompts"),
        ("w/o Text Prompts", "no text prompts"), ("Three-Stage Progressive", "three stages (as shipped)"))),
}
NOTES = {
    "pglh-3": ("The paper does not say what stands in the decoder's place; here a linear map recovers from H_m and mask tokens.",
               "Without UBPF (15) pools H_m alone."),
    "pglh-4": ("Of the row of L_mask alone only Acc-2 is legible in our copy of the paper.",),
    "pgmf-9": ("The paper does not tell the depths of its sizes: with 1, 2, 4, 6 and 12 layers each in alignment and fusion its counts come out within 10 %.",),
    "spro-3": ("As printed: on test. Ours: on valid, where epoch and fusion weight were chosen as well.",),
}
TABLE_TITLES = {**TITLES, "accuracy": "Acc", "f1_weighted": "F1 weighted"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", required=True, choices=sorted(ROWS), help="method and number of the paper's table")
    pickled.add_arguments(parser)
    parser.set_defaults(rates=None)
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds of every row (the configuration's)")
    parser.add_argument("--epochs", type=int, help="of every run (the configuration's)")
    parser.add_argument("--captions", type=Path, default=Path("checkpoints/captions.jsonl.gz"), help="for spro-3: stage captions")


def command_of(args: argparse.Namespace, line: Line, out: Path) -> argparse.Namespace:
    """The command that trains one row; a student learns from the table's own teacher, unless one was given."""
    own = argparse.Namespace(**vars(args))
    own.command, own.without_prompt, own.set = line.method, not line.prompt, [*overrides(args), *line.settings]
    own.teacher = (args.teacher or out / "pgmf-teacher") if line.method == "pgmf-student" else None
    return own


def overrides(args: argparse.Namespace) -> list[str]:
    seeds = [] if args.seeds is None else [f"seeds={','.join(map(str, args.seeds))}"]
    return [*seeds, *([] if args.epochs is None else [f"epochs={args.epochs}"]), *args.set]


def train_row(args: argparse.Namespace, line: Line, seed: int, out: Path, known: dict) -> Path:
    """One run of a row, with what was read for another row of the same kind where there is one; returns its report."""
    own, kind = command_of(args, line, out), (line.method, line.prompt)
    if kind not in known:
        known[kind] = pickled.bundle_of(own)
    recipe = replace(pickled.recipe_of(own, line.method), **given(args), seeds=(seed,))
    reports = pickled.train_seeds(own, replace(known[kind], recipe=recipe), out / line.folder, parse_rates(own.rates))
    if not reports:
        raise InputError(f"{known[kind].source} has no test rows, and a table needs some; name some in its column split (or mode).")
    return reports[0]


def clip_rows(args: argparse.Namespace, write) -> None:
    """Train and measure every row, seed by seed, so that an unfinished table has every row once before any twice."""
    lines, known, found = ROWS[args.table], {}, {}
    first = lines[0].method
    args.rates = args.rates or ("0:0.9:0.1" if first == "pglh" else "0")
    recipe = pickled.recipe_of(command_of(args, lines[0], Path()), first)
    dataset, out = recipe.dataset, args.out or Path("runs") / f"ablation-{pickled.name_of(args)}"
    over = len(parse_rates(args.rates)) > 1
    for seed in recipe.seeds:
        if any(line.method == "pgmf-student" for line in lines) and args.teacher is None:
            train_row(args, Line("", "pgmf-teacher"), seed, out, known)
        for line in lines:
            report = json.loads(train_row(args, line, seed, out, known).read_text(encoding="utf-8"))
            found.setdefault(line.name, []).append({**(report["average"] if over else report["rates"][0]), "parameters": report["parameters"]})
            about = f"{report['split']}, {report['about']}; {'mean over the rates' if over else 'at rate'} {args.rates}; {recipe.epochs} epochs; words by {Path(report['text']).name}"
            write(out, dataset, MEASURED[dataset], found, (*(ERRATA["over rates", "mosi"][-1:] if (first, dataset) == ("pglh", "mosi") else ()), about))


def post_rows(args: argparse.Namespace, write) -> None:
    if args.data is None:
        raise InputError("The table spro-3 is trained on posts; give --data their folder.")
    recipe = read_recipe("spro", args.config or "mvsa-single", overrides(args))
    plain = replace(SPROSettings(), batch=recipe.batch, views=recipe.views)
    if recipe.settings != plain or (recipe.weight_decay, recipe.ema) != (0.05, 0.98):
        raise InputError("The rows of spro-3 differ in the model alone; of the training, change epochs, lr, batch, views and seeds only.")
    parser = argparse.ArgumentParser()
    spro_ablation.add_arguments(parser)
    out, found = args.out or Path("runs") / f"ablation-spro-{recipe.dataset}", {}
    own = parser.parse_args(["--data", str(args.data), "--captions", str(args.captions), "--epochs", str(recipe.epochs), "--lr", str(recipe.lr), "--batch", str(recipe.batch),
                             "--views", str(recipe.views), "--work", str(out)])
    for seed in recipe.seeds:
        for line in ROWS[args.table]:
            config = replace(recipe.build_config("spro", {}), **spro_ablation.ROWS[line.part])
            result = spro_ablation.one(own, config, line.part, seed)
            found.setdefault(line.name, []).append({"accuracy": result["fusion_accuracy"], "f1_weighted": result["fusion_weighted_f1"]})
            write(out, recipe.dataset, POST_COLUMNS, found, (f"{recipe.epochs} epochs.",))


def make_table(table: str, dataset: str, columns: tuple[str, ...], found: Mapping[str, list[dict]], notes: tuple[str, ...]) -> Table:
    """Each row as printed, where it is, and as measured: mean and deviation over its seeds."""
    theirs, rows = printed_ablation(table, dataset), []
    for line in ROWS[table]:
        if line.name in theirs:
            rows.append((f"{line.name}, as printed", *(shown(c, theirs[line.name].get(c)) for c in columns), "-"))
        if line.name in found:
            runs = found[line.name]
            figures, size = spread(runs, columns), runs[0].get("parameters")
            rows.append((f"{line.name}, ours ({len(runs)} seed{'s' if len(runs) > 1 else ''})", *(shown(c, *figures[c]) for c in columns), f"{size / 1e6:.2f} M" if size else "-"))
    paper, number = table.upper().split("-")
    source = f"{paper}, Table {number}" + ("" if theirs else f", which the paper does not print for {dataset}")
    return Table(f"{source} ({dataset})", ("row", *(TABLE_TITLES[c] for c in columns), "parameters"), tuple(rows), (*NOTES.get(table, ()), *notes))


def run(args: argparse.Namespace) -> None:
    if args.without_prompt:
        raise InputError("A table has its own row without a prompt; leave --without-prompt out.")

    def write(out: Path, dataset: str, columns: tuple[str, ...], found: dict, notes: tuple[str, ...]) -> None:
        table = make_table(args.table, dataset, columns, found, notes)
        theirs = printed_ablation(args.table, dataset)
        rows = [{"row": line.name, "method": line.method, "settings": list(line.settings), "printed": theirs.get(line.name, {}),
                 "ours": {c: {"mean": mean, "deviation": deviation} for c, (mean, deviation) in spread(found[line.name], columns).items()}, "runs": found[line.name]}
                for line in ROWS[args.table] if line.name in found]
        for ending, text in (("json", json.dumps({"table": args.table, "dataset": dataset, "rows": rows, "notes": table.notes}, indent=1)), ("md", table.markdown()), ("tex", table.latex())):
            write_atomically(out / f"{args.table}.{ending}", text.encode())
        done.append((out, table))

    done: list[tuple[Path, Table]] = []
    (post_rows if args.table.startswith("spro") else clip_rows)(args, write)
    out, table = done[-1]
    print(table.markdown() + f"\nwrote {out}: {args.table}.json, .md and .tex")


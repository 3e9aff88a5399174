"""python -m train pglh|pgmf-teacher|pgmf-student --config NAME --pickle FILE: a method on an MMSA pickle, a run a seed, each measured at the end.
With --data DIR instead, and --config only if one wants it, on a folder of labelled clips (train/raw.py); then `baseline` is trained so as well.

DIR/seed-N/ holds a run's resumable state, its checkpoint and its report. The same command goes on where it was stopped, and `python -m train
table DIR` writes the tables. The epoch is chosen on valid; test is measured once, with the weights of that epoch.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Mapping

import numpy as np

from msademo.checkpoint import file_hash, read_checkpoint, save_checkpoint, write_atomically
from msademo.errors import InputError
from msademo.features.bundle import Statistics
from msademo.registry import METHODS, FusionModel, build
from train.data import SPLITS
from train.evaluate import parse_rates
from train.execution import OPTIONS, Execution, add_execution_arguments, given
from train.featured import DistilledTask, Featured, FeaturedTask, featured, signature, with_prompts
from train.jobs import CACHE
from train.labelled import extractor_of, read_labelled
from train.loop import Fitted, best_device, fit
from train.pgmf import check_same_shape
from train.pickles import read_mmsa
from train.processes import is_main, main_first
from train.protocol import PROTOCOLS, Bench
from train.raw import read_folder, table_of
from train.readers import FIXED, load_encoder
from train.recipes import Recipe, read_recipe, recipe_dict

TEXT, FACE = Path("checkpoints/text.safetensors"), Path("checkpoints/face.safetensors")


@dataclass(frozen=True)
class Bundle:
    """All that a method's runs share: its recipe, the splits, what decides the outcome beside the recipe, and how a checkpoint tells of them.

    source: "the pickle NAME"; option: the command's; about: what goes into a checkpoint beside the figures.
    """

    method: str
    recipe: Recipe
    data: dict[str, Featured]
    told: dict
    source: str
    option: str
    about: dict

    @property
    def settings(self) -> dict:
        """What, with the schedule (which holds the execution), decides a run's outcome."""
        return {**{k: v for k, v in recipe_dict(self.recipe).items() if k not in ("seeds", "draws", *OPTIONS)}, **self.told}


def told_of(meta: Mapping, path: Path, folder: bool) -> Mapping:
    """What a checkpoint says of the pickle, or of the labelled folder, it was trained on. On a folder one of the composed corpus can be measured as
    well, for its features are of the same kind."""
    if not folder:
        return meta["pickle"]
    if "folder" in meta:
        return meta["folder"]
    text = {"encoder": str(path.with_name(TEXT.name)), "sha256": meta["extractor"]["text_sha256"]}
    return {"dataset": "folder-3", "text": text, "signature": "", "guidance": "written offline from the complete clips", "lengths": None}


def load_featured(path: str | Path, method: str | None = None, folder: bool = False) -> FusionModel:
    """The model of a checkpoint that was trained on a pickle, or with `folder` one for labelled folders; what it tells of its data is meta["told"].
    InputError for any other."""
    checkpoint = read_checkpoint(path, method)
    model = build(checkpoint)
    try:
        statistics, told = Statistics.from_dict(checkpoint.meta["statistics"]), told_of(checkpoint.meta, Path(path), folder)
        for key in ("dataset", "text", "signature", "guidance", "lengths"):
            told[key]
        checkpoint.meta["median"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        other = "a folder of clips or the composed corpus; give --pickle for a checkpoint that --pickle made" if folder else \
            "a pickle; leave --pickle out, or give a checkpoint that --pickle made"
        raise InputError(f"{Path(path).name} was not trained on {other}.") from error
    return FusionModel(model.to(best_device()), statistics, {**checkpoint.meta, "told": told})


def teacher_of(args: argparse.Namespace, seed: int) -> Path:
    """The teacher of one seed's student: the file given, or that seed's checkpoint in the folder of the teacher's runs."""
    if args.teacher is None:
        raise InputError("The student pgmf-student learns from a teacher; give --teacher the folder of its runs, such as runs/pgmf-teacher-mosi, or a checkpoint.")
    return args.teacher / f"seed-{seed}" / "model.safetensors" if args.teacher.is_dir() else args.teacher


def gather(args: argparse.Namespace, method: str, recipe: Recipe, text_encoder: str, guided: bool) -> Bundle:
    """Read the pickle or the folder, and the words."""
    encoder, text = load_encoder(text_encoder)
    lengths, name, about = recipe.model.get("lengths"), args.pickle.name if args.pickle else args.data.resolve().name, {}
    if args.pickle:
        splits = read_mmsa(args.pickle, recipe.limit, say=print)
        data = {split: featured(splits[split], encoder, lengths) for split in SPLITS}
    else:
        folder = read_folder(args.data, recipe.limit)
        with main_first():
            data = read_labelled(folder, encoder, lengths, args.face, args.cache, args.workers)
        about = {"extractor": extractor_of(text, args.face)}
        print(f"{method}: {name}: {folder.counts()}, {folder.division}; scores in [-{recipe.limit:g}, {recipe.limit:g}]")
        for split in ("train", "valid"):
            if split not in data:
                raise InputError(f"{table_of(args.data)} has no {split} rows that can be used; name some in its column split (or mode), or leave that column out.")
    origin = None
    if guided:
        for split in data if method != "pgmf-student" else ("train",):           # a student is measured without guidance
            data[split], origin = with_prompts(data[split], encoder)
    told = {"dataset": recipe.dataset, "text": text, "guidance": origin, "signature": signature({split: part.split for split, part in data.items()}), "lengths": lengths}
    if not args.pickle:
        told |= {"name": name, "face": about["extractor"]["face_sha256"], "voice": about["extractor"]["voice_sha256"], "division": folder.division}
    print(f"{method}: {name}: " + ", ".join(f"{split} {len(part.samples)}" for split, part in data.items()) + f"; words by {text['encoder']}")
    kind, option = ("pickle", "pickle") if args.pickle else ("folder", "data")
    return Bundle(method, recipe, data, told, f"the {kind} {name}", f"--{option} {name}", {**about, kind: told})


def make_task(args: argparse.Namespace, bundle: Bundle, seed: int) -> tuple[FeaturedTask, dict]:
    """The task of one seed, and what of its teacher belongs to the settings."""
    method, recipe = bundle.method, bundle.recipe
    if method != "pgmf-student":
        without = {"guided": False} if getattr(args, "without_prompt", False) else {}
        make = lambda dims: METHODS[method][0](replace(recipe.build_config(method, dims), **without))
        return FeaturedTask(method, make, bundle.data["train"], bundle.data["valid"], recipe, seed), {}
    path = teacher_of(args, seed)
    teacher = load_featured(path, "pgmf-teacher", folder=not args.pickle)
    for key, what in (("signature", "other data"), ("text", "words read otherwise")):
        if teacher.meta["told"][key] != bundle.told[key]:
            raise InputError(f"The teacher {path} was trained on {what}; give one that was trained on {bundle.source} with the same --text-encoder.")
    check_same_shape(recipe.build_config(method, teacher.model.config.dims), teacher.model.config, path.name)
    task = DistilledTask(method, lambda dims: METHODS[method][0](recipe.build_config(method, dims)), bundle.data["train"], bundle.data["valid"], recipe, seed, teacher)
    return task, {"teacher": {"file": path.name, "sha256": file_hash(path)}}


def train_seed(args: argparse.Namespace, bundle: Bundle, seed: int, folder: Path) -> Path:
    """Train one run (or go on with it) and write its checkpoint."""
    task, origin = make_task(args, bundle, seed)
    schedule = bundle.recipe.schedule(seed)
    best: Fitted = fit(task, schedule, folder, {**bundle.settings, **origin})
    limit = bundle.recipe.limit
    path = folder / "model.safetensors"
    if not is_main():
        return path
    save_checkpoint(
        path, bundle.method, asdict(task.model.config), task.model.state_dict(), statistics=task.statistics.to_dict(), scale=[-limit, limit],
        median=float(np.median(bundle.data["train"].truth)), **bundle.about, settings=bundle.settings, schedule=asdict(schedule), epoch=best.epoch,
        seed=seed, history=best.history, data=bundle.source,
        metrics={"split": "valid", "protocol": "one mask draw a rate; epoch chosen here", **best.metrics}, **origin,
        command=f"python -m train {bundle.method} {f'--config {args.config} ' if args.config else ''}{bundle.option} --text-encoder {bundle.told['text']['encoder']}"
                + "".join(f" --set {change}" for change in args.set) + Execution(**given(args)).options())
    print(f"wrote {path}: epoch {best.epoch}, valid score {best.metrics['score']:.4f}")
    return path


def measure(path: Path, data: Featured, protocol: str, rates: list[float], draws: int, seed: int, target: Path) -> None:
    """Write the report of one checkpoint on one split to `target`; what is there of the very same measurement is not measured again."""
    fusion = load_featured(path, folder=data.bundled)
    told, guided = fusion.meta["told"], getattr(fusion.model.config, "guided", False)
    about = f"; prompts: {told['guidance']}" if guided and data.prompts is not None else "; without a prompt" if guided else ""
    job = {"sha256": file_hash(path), "data": signature({"": data.split}), "asked": rates, "draws": draws, "seed": seed, "protocol": protocol, "prompted": about}
    partial = target.with_name(f"{target.name}.partial")
    done, part = (stored(file, job) for file in (target, partial))
    if done:
        print(f"{target} is there already")
        return
    keep = lambda rows: write_atomically(partial, json.dumps({"job": job, "rows": rows}).encode())
    report = Bench(data, told["dataset"], protocol, draws, seed).report(fusion, rates, part.get("rows", ()), keep)
    where = {"folder": data.split.folder} if data.bundled else {}
    report = {"method": fusion.meta["method"], "dataset": told["dataset"], **where, "text": told["text"]["encoder"], "training_seed": fusion.meta["seed"], "epoch": fusion.meta["epoch"],
              "epochs": fusion.meta["schedule"]["epochs"], "parameters": sum(p.numel() for p in fusion.model.parameters()), "checkpoint": path.name,
              **report, "about": report["about"] + about, "job": job}
    write_atomically(target, json.dumps(report, indent=1).encode())
    partial.unlink(missing_ok=True)
    print(f"wrote {target}")


def stored(path: Path, job: dict) -> dict:
    """What a file holds of this very measurement; empty where it is another's, damaged or not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["job"] == job else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="mosi, mosei or sims (train/configs/METHOD-NAME.toml), own (a folder's default), or the path of a .toml file")
    add_source_arguments(parser)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="change the configuration: epochs=20 model.width=32 seeds=1,2")
    parser.add_argument("--text-encoder", help=f"pickle (its text features; a pickle's default), bundled, a text checkpoint of ours (a folder's default: {TEXT}), or a BERT's name or "
                                               "folder; a student's default is its teacher's")
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/METHOD-NAME)")
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="draws", help="how tokens go missing when the runs are measured")
    parser.add_argument("--rates", default="0:0.9:0.1", help="missing rates they are measured at: from:to:step, or a list")
    parser.add_argument("--mask-seed", type=int, default=1111, help="fixes the masks they are measured under")
    parser.add_argument("--teacher", type=Path, help="for a student: the folder of its teacher's runs, or one checkpoint")
    parser.add_argument("--without-prompt", action="store_true", help="for a teacher: plain attention, nothing to read")
    add_execution_arguments(parser)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained or measured on."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pickle", type=Path, help="an MMSA pickle, such as unaligned_50.pkl")
    source.add_argument("--data", type=Path, help="a folder of labelled clips: label.csv and Raw/, or labels.csv and media")
    parser.add_argument("--scale", type=int, choices=(1, 3), help="of a folder's labels, [-1, 1] or [-3, 3]; without it 1 where no label is beyond it")
    parser.add_argument("--face", type=Path, default=FACE, help="for a folder: the expression network")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for a folder: where its features are kept")
    parser.add_argument("--workers", type=int, help="for a folder: processes that extract features (one a core)")


def recipe_of(args: argparse.Namespace, method: str) -> Recipe:
    """The configuration with the command's changes. A folder's data set follows from its labels, unless a configuration names one."""
    if args.config is None and args.pickle:
        raise InputError("Which settings? Give --config mosi, mosei or sims, or the path of a .toml file.")
    if args.scale is not None and args.config is not None:
        raise InputError("--scale is for folders without --config, whose data set tells the scale; leave one of them out.")
    if args.config is not None:
        return read_recipe(method, args.config, args.set)
    return read_recipe(method, "own", [f"dataset=folder-{read_folder(args.data, args.scale).limit:g}", *args.set])


def bundle_of(args: argparse.Namespace) -> Bundle:
    """All that the command args.command asks for, read and checked."""
    method = args.command
    recipe = replace(recipe_of(args, method), **given(args))
    recipe.execution.start()
    text, guided = args.text_encoder or (FIXED if args.pickle else str(TEXT)), method == "pgmf-teacher" and not args.without_prompt
    if args.without_prompt and method != "pgmf-teacher" or args.teacher and method != "pgmf-student":
        raise InputError(f"{method} takes neither a teacher's nor a student's options; leave {'--teacher' if args.teacher else '--without-prompt'} out.")
    if method == "pgmf-student":
        teacher = load_featured(teacher_of(args, recipe.seeds[0]), "pgmf-teacher", folder=not args.pickle)
        text, guided = args.text_encoder or teacher.meta["told"]["text"]["encoder"], teacher.model.config.guided
    return gather(args, method, recipe, text, guided)


def name_of(args: argparse.Namespace) -> str:
    """How a run's folder tells its data: by the configuration, or by the folder of clips."""
    return Path(args.config).stem if args.pickle else args.data.resolve().name


def run(args: argparse.Namespace) -> None:
    bundle, rates = bundle_of(args), parse_rates(args.rates)
    method, out = bundle.method, args.out or Path("runs") / f"{bundle.method}-{name_of(args).removeprefix(f'{bundle.method}-')}"
    train_seeds(args, bundle, out, rates)
    print(f"{method}: {len(bundle.recipe.seeds)} runs in {out}; `python -m train table {out}` writes their tables")


def train_seeds(args: argparse.Namespace, bundle: Bundle, out: Path, rates: list[float]) -> list[Path]:
    """A run a seed in out/seed-N, each measured on test where there is one; returns the reports. What is there already is not done again."""
    method, recipe, test, reports = bundle.method, bundle.recipe, bundle.data.get("test"), []
    if args.protocol == "lnln" and test is not None:
        Bench(test, recipe.dataset, "lnln", 1, args.mask_seed)          # refuses what it cannot mask before hours of training
    for seed in recipe.seeds:
        folder = out / f"seed-{seed}"
        path = train_seed(args, bundle, seed, folder)
        target = folder / ("report.json" if args.protocol == "draws" else f"report-{args.protocol}.json")
        if test is None:
            print(f"{method}: {bundle.source} has no test rows; `python -m train evaluate` measures {path} on another folder")
        elif is_main():
            measure(path, test, args.protocol, rates, recipe.draws, args.mask_seed, target)
            reports.append(target)
    return reports

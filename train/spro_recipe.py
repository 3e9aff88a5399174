"""python -m train spro --config spro-mvsa-single --data DIR: SPRO with the settings of a file in train/configs/, and changes to them."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

from train import spro
from train.recipes import PostRecipe, read_recipe

# The command's own options, which stand for settings of the file where they are given.
SETTINGS = {"backbone": "model.backbone", "stages": "model.captions", "tuned": "model.tuned_layers", "epochs": "epochs", "lr": "lr", "batch": "batch",
            "views": "views", "seed": "seeds"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    spro.add_arguments(parser)
    parser.set_defaults(**dict.fromkeys(SETTINGS), out=None, work=None)
    parser.add_argument("--config", required=True, help="spro-mvsa-single or spro-mvsa-multiple (train/configs/), or the path of a .toml file")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="change the configuration: epochs=8 model.prompts=4")


def recipe_of(args: argparse.Namespace) -> PostRecipe:
    """The file's recipe, changed by the options that were given and by --set."""
    given = [f"{setting}={getattr(args, option)}" for option, setting in SETTINGS.items() if getattr(args, option) is not None]
    return read_recipe("spro", args.config, [*given, *args.set])


def run(args: argparse.Namespace) -> None:
    recipe = recipe_of(args)
    folder = Path("runs") / f"spro-{Path(args.config).stem.removeprefix('spro-')}"
    for seed in recipe.seeds:
        one = copy.copy(args)
        one.work = (args.work or folder) / f"seed-{seed}"
        one.out = args.out if args.out and len(recipe.seeds) == 1 else (args.out.parent if args.out else folder) / f"seed-{seed}" / "spro.safetensors"
        spro.train_and_save(one, recipe.build_config("spro", {}), recipe.settings, recipe.schedule(seed))

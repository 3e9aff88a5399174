"""The papers' settings, one short file a method and data set in train/configs/, and how a command line changes them."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.models.meanpool import MeanPoolConfig
from msademo.models.pglh import PGLHConfig
from msademo.models.pgmf import PGMFConfig
from msademo.models.spro import SPROConfig
from train.execution import OPTIONS, Execution
from train.loop import Schedule
from train.spro_task import SPROSettings
from train.words import Masking

FOLDER = Path(__file__).parent / "configs"
CONFIGS = {"pglh": PGLHConfig, "pgmf-teacher": PGMFConfig, "pgmf-student": PGMFConfig, "baseline": MeanPoolConfig, "spro": SPROConfig}
# Scores lie in [-limit, limit]; SIMS v2 is "sims", and a folder of one's own is measured as MOSI or as SIMS are.
LIMITS = {"mosi": 3.0, "mosei": 3.0, "sims": 1.0, "folder-3": 3.0, "folder-1": 1.0}
POSTS = ("mvsa-single", "mvsa-multiple")
GIVEN = ("dims", "guided", "image_weight")               # read from the arrays, told by the command, chosen on valid
EXPECTED = {tuple: "numbers with commas", bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Training:
    """How long and how fast, as any method has it. seeds: a run each. precision, accumulate, deterministic: train.execution.Execution. model: fields of the
    model's config."""

    dataset: str
    epochs: int
    lr: float
    batch: int = 64
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    seeds: tuple[int, ...] = (1111, 1112, 1113)
    precision: str = Execution.precision
    accumulate: int = Execution.accumulate
    deterministic: bool = Execution.deterministic
    model: Mapping = field(default_factory=dict)

    def __post_init__(self):
        if self.dataset not in self.datasets():
            raise InputError(f"There is no data set {self.dataset!r}; {nearest(self.dataset, self.datasets())}.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"The seeds {', '.join(map(str, self.seeds)) or '(none)'} cannot be used; give different whole numbers from 0 on.")
        self.schedule(self.seeds[0])                         # checks itself

    def schedule(self, seed: int) -> Schedule:
        return Schedule(self.epochs, self.lr, self.weight_decay, self.warmup, self.clip, self.ema, seed, self.execution)

    @property
    def execution(self) -> Execution:
        return Execution(**{name: getattr(self, name) for name in OPTIONS})


@dataclass(frozen=True)
class Recipe(Training):
    """How one method is trained on the clips of one data set.

    dataset: whose scale and metrics hold. draws: masks a rate in evaluation. valid_rates: the epoch whose mean error over them on
    valid is least is kept. highest, clean_share, span_share, absent: train.words.Masking.
    """

    draws: int = 10
    valid_rates: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    highest: float = 0.9
    clean_share: float = 0.0
    span_share: float = 0.0
    absent: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.batch < 1 or self.draws < 1 or not self.valid_rates or not all(0 <= rate <= 1 for rate in self.valid_rates):
            raise InputError("batch and draws must be positive, and valid_rates must name rates from 0 to 1.")
        self.masking                                         # checks itself

    @staticmethod
    def datasets() -> tuple[str, ...]:
        return tuple(LIMITS)

    @property
    def limit(self) -> float:
        return LIMITS[self.dataset]

    @property
    def masking(self) -> Masking:
        return Masking(highest=self.highest, clean_share=self.clean_share, span_share=self.span_share, absent=self.absent)

    def build_config(self, method: str, dims: Mapping[str, int]):
        """The model's config for features of these widths; checked there."""
        guided = {"guided": method == "pgmf-teacher"} if method.startswith("pgmf") else {}
        return CONFIGS[method](dims=dict(dims), **guided, **self.model)


@dataclass(frozen=True)
class PostRecipe(Training):
    """How SPRO is trained on the posts of one data set; the others are train.spro_task.SPROSettings."""

    whole_texts: float = SPROSettings.whole_texts
    highest: float = SPROSettings.highest
    hidden_patches: float = SPROSettings.hidden_patches
    views: int = SPROSettings.views

    def __post_init__(self):
        super().__post_init__()
        self.settings                                        # checks itself

    @staticmethod
    def datasets() -> tuple[str, ...]:
        return POSTS

    @property
    def settings(self) -> SPROSettings:
        return SPROSettings(**{part.name: getattr(self, part.name) for part in fields(SPROSettings)})

    def build_config(self, method: str, dims: Mapping[str, int]) -> SPROConfig:
        return CONFIGS[method](**self.model)


RECIPES = {method: PostRecipe if method == "spro" else Recipe for method in CONFIGS}


def nearest(name: str, known: Iterable[str]) -> str:
    """How a refusal ends: the known name that is most like the unknown one, and all there are."""
    known = list(known)
    return f"the nearest is {difflib.get_close_matches(name, known, 1, 0.0)[0]!r} (all: {', '.join(known)})"


def default_of(part) -> object:
    return part.default if part.default is not MISSING else part.default_factory() if part.default_factory is not MISSING else part.type


def checked(name: str, value, like: object):
    """A value of a TOML file or a command line as the kind that belongs there; `like`: the field's default, or its type's name."""
    kind = {"str": str, "int": int, "float": float}[like] if isinstance(like, str) and like in ("str", "int", "float") else type(like)
    try:
        if like is None or isinstance(like, Mapping):                                   # lengths: a number a modality, or none
            if value in (None, "none"):
                return None
            if not isinstance(value, Mapping) or set(value) != set(MODALITIES):
                raise ValueError
            return {m: checked(f"{name}.{m}", value[m], 1) for m in MODALITIES}
        if kind is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(checked(name, part.strip() if isinstance(part, str) else part, like[0]) for part in parts)
        if kind is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if kind is str and not isinstance(value, str) or isinstance(value, (bool, Mapping, list)):
            raise ValueError
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        if kind is not str and not math.isfinite(float(value)):
            raise ValueError
        return int(float(value)) if kind is int else kind(value)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        wanted = f"a number for each of {', '.join(MODALITIES)}" if like is None else EXPECTED.get(kind, "of another kind")
        raise InputError(f"{name} cannot be {value!r}; it must be {wanted}.") from error


def settings_of(method: str) -> tuple[dict, dict]:
    """What may be set: the recipe's fields and the model's, each with its default (or the name of its type)."""
    return ({part.name: default_of(part) for part in fields(RECIPES[method]) if part.name != "model"},
            {part.name: default_of(part) for part in fields(CONFIGS[method]) if part.name not in GIVEN})


def put(tree: dict, name: str, value, method: str, where: str) -> None:
    """One setting into the recipe's tree; name: "epochs", "model.width", "model.lengths.text"."""
    own, model = settings_of(method)
    head, *rest = name.split(".")
    if head != "model":
        if head not in own or rest:
            raise InputError(f"{where} sets {name!r}, which {method} does not have; {nearest(name, [*own, *(f'model.{key}' for key in model)])}.")
        tree[head] = checked(name, value, own[head])
        return
    key = rest[0] if rest else ""
    if key not in model or len(rest) > 2 or (len(rest) == 2 and (key != "lengths" or rest[1] not in MODALITIES)):
        known = [f"model.{known}" for known in model] + ([f"model.lengths.{m}" for m in MODALITIES] if "lengths" in model else [])
        raise InputError(f"{where} sets {name!r}, which {method} does not have; {nearest(name, known)}.")
    if len(rest) == 2:
        lengths = dict(tree["model"].get("lengths") or {})
        lengths[rest[1]] = checked(name, value, 1)
        tree["model"]["lengths"] = lengths
    else:
        tree["model"][key] = checked(name, value, model[key])


def read_recipe(method: str, config: str, overrides: Sequence[str] = ()) -> Recipe | PostRecipe:
    """The recipe `config`: a data set's name (or METHOD-NAME) for the file in train/configs/, or the path of a TOML file. overrides: "name=value" each."""
    config = config.removeprefix(f"{method}-")
    path = Path(config) if config.endswith(".toml") else FOLDER / f"{method}-{config}.toml"
    if not path.is_file():
        known = sorted(found.stem.removeprefix(f"{method}-") for found in FOLDER.glob(f"{method}-*.toml"))
        raise InputError(f"There is no configuration {config!r} for {method}; {nearest(config, known)}, or give the path of a .toml file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}.") from error
    tree: dict = {"model": {}}
    inner = content.pop("model", {})
    if not isinstance(inner, Mapping):
        raise InputError(f"{path} sets model to a single value; it must be a table [model].")
    for name, value in [*content.items(), *((f"model.{key}", value) for key, value in inner.items())]:
        put(tree, name, value, method, path.name)
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, such as epochs=20 or model.width=32, not {text!r}.")
        put(tree, name.strip(), value.strip(), method, "--set")
    lacking = [part.name for part in fields(RECIPES[method]) if part.default is MISSING and part.default_factory is MISSING and part.name not in tree]
    if lacking:
        raise InputError(f"{path.name} lacks {lacking[0]!r}; a configuration names dataset, epochs and lr at least.")
    recipe = RECIPES[method](**tree)
    recipe.build_config(method, dict.fromkeys(MODALITIES, 1))          # the model's own checks, before any data is read
    return recipe


def recipe_dict(recipe: Recipe) -> dict:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}

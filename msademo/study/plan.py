"""What a run asks of the models, and what it is called while it goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Mapping

from msademo.corruption import MODALITIES, check_ratio, check_seed
from msademo.errors import InputError
from msademo.options import MODELS
from msademo.study.sets import CLIP, POST

PARTS = {CLIP: MODALITIES, POST: ("text", "image")}         # what can be taken from an item of each kind
PART_NAMES = {"text": "words", "audio": "voice", "vision": "face", "image": "picture"}
ANSWERS = {CLIP: MODELS, POST: {"fusion": "Together", "image": "Picture alone", "text": "Words alone"}}     # who answers; what people call them
LONGEST_NAME = 80


@dataclass(frozen=True)
class Plan:
    """Every item is answered as it is under `missing`, once more without each of its parts, and under random masks.

    missing: a ratio in [0, 1] a part, for the whole run. models: of clips, empty = all there are. masks: how many random masks of
    `mask_ratio` of all parts tell how much an answer changes. seed: of all masks.
    """

    missing: Mapping[str, float] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    masks: int = 3
    mask_ratio: float = 0.5
    seed: int = 0

    def __post_init__(self):
        known = {part for parts in PARTS.values() for part in parts}
        unknown = set(self.missing) - known
        if unknown:
            raise InputError(f"There is no {sorted(unknown)[0]!r} that could be missing; choose among {', '.join(sorted(known))}.")
        for part, ratio in self.missing.items():
            if check_ratio(ratio, f"The missing ratio of the {PART_NAMES[part]}") == 1.0:
                raise InputError(f"The whole {PART_NAMES[part]} cannot be missing from a run; choose a share below 1 (every run tries without each part anyway).")
        strange = [name for name in self.models if name not in MODELS]
        if strange:
            raise InputError(f"There is no model {strange[0]!r}; choose among {', '.join(MODELS)}.")
        if not isinstance(self.masks, int) or not 0 <= self.masks <= 20:
            raise InputError(f"The number of masks must be a whole number from 0 to 20; {self.masks!r} is not.")
        check_ratio(self.mask_ratio, "The share that a mask takes away")
        check_seed(self.seed)

    def ratios(self, kind: str, **other: float) -> dict[str, float]:
        """What is missing from an item of that kind, some parts otherwise than planned."""
        return {part: float(other.get(part, self.missing.get(part, 0.0))) for part in PARTS[kind]}

    def told(self, kind: str) -> str:
        """The condition in words."""
        gone = [f"{ratio:.0%} of the {PART_NAMES[part]}" for part, ratio in self.ratios(kind).items() if ratio > 0]
        return f"{' and '.join(gone)} missing" if gone else "nothing missing"

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Plan":
        """From what `dumps` wrote; names of later versions are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        return cls(**values | {"models": tuple(values.get("models", ()))})


# States of a run. "interrupted" is not stored: it is a run that says it is going on and that nobody works at.
QUEUED, RUNNING, DONE, CANCELLED, INTERRUPTED, FAILED = "queued", "running", "done", "cancelled", "interrupted", "failed"
AT_WORK = (QUEUED, RUNNING)

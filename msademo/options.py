"""What a caller may ask an Analyzer for, checked: ratios, kinds of corruption, models. Every refusal is one sentence."""

from __future__ import annotations

from typing import Iterable, Mapping

from msademo import degrade
from msademo.corruption import KINDS, MODALITIES, check_ratio
from msademo.errors import InputError, shown

SIGNAL_KINDS = {"text": degrade.TEXT_KINDS, "audio": degrade.AUDIO_KINDS, "vision": degrade.VIDEO_KINDS}
MODELS = {"pglh": "PGLH", "pgmf-student": "PGMF student", "pgmf-teacher": "PGMF teacher"}      # in the order they are shown; what people call them


def kinds_of(kind: str | Mapping[str, str]) -> dict[str, str]:
    """One kind a modality. A token kind ("random", "span") holds for all; names joined with "+" ("noise+blur") or a mapping
    choose for the modalities they belong to, the others stay random."""
    if isinstance(kind, Mapping):
        unknown = set(kind) - set(MODALITIES)
        if unknown:
            raise InputError(f"There is no modality {shown(sorted(unknown, key=str)[0])}; choose among {', '.join(MODALITIES)}.")
        chosen = {m: str(kind.get(m, "random")) for m in MODALITIES}
        for m, name in chosen.items():
            if name not in KINDS and name not in SIGNAL_KINDS[m]:
                raise InputError(f"There is no corruption of {m} called {shown(name)}; choose one of: {', '.join([*KINDS, *SIGNAL_KINDS[m]])}.")
        return chosen
    if isinstance(kind, str) and kind in KINDS:
        return dict.fromkeys(MODALITIES, kind)
    chosen = dict.fromkeys(MODALITIES, "random")
    for name in str(kind).split("+"):
        owner = next((m for m in MODALITIES if name in SIGNAL_KINDS[m]), None)
        if name in KINDS:
            raise InputError(f"{shown(name)} holds for all modalities and cannot be joined with '+'; give it alone, or a kind for each modality.")
        if owner is None:
            every = [*KINDS, *(name for kinds in SIGNAL_KINDS.values() for name in kinds)]
            raise InputError(f"There is no corruption called {shown(name)}; choose one of: {', '.join(every)}, or several joined with '+'.")
        if chosen[owner] != "random":
            raise InputError(f"{shown(chosen[owner])} and {shown(name)} both corrupt the {owner}; choose one of them.")
        chosen[owner] = name
    return chosen


def ratios_of(given: Mapping[str, float] | float | None, parts: Iterable[str] = MODALITIES) -> dict[str, float]:
    """A ratio a part (a clip's modalities, or the halves of a post); one number holds for all, what is not named loses nothing."""
    parts = tuple(parts)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        given = dict.fromkeys(parts, given)
    unknown = set(given) - set(parts)
    if unknown:
        raise InputError(f"There is no {shown(sorted(unknown, key=str)[0])} that could be missing; choose among {', '.join(parts)}.")
    return {part: check_ratio(given.get(part, 0.0), f"The missing ratio of {part}") for part in parts}


def models_of(given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The models asked for, each once, in the order they are shown; None = all there are. A string may name several with commas."""
    if given is None:
        return None
    named = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    unknown = [name for name in named if name not in MODELS]
    if unknown or not named:
        raise InputError(f"There is no model {shown(unknown[0])}; choose among {', '.join(MODELS)}." if unknown else
                         f"No model was named; choose among {', '.join(MODELS)}, or leave it out for all.")
    return tuple(name for name in MODELS if name in named)

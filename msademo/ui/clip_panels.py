"""What one slider move costs on the server: `update` asks the models under the new mask and draws every panel.

And what the page remembers of a clip between two moves.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field, fields
from typing import Mapping
from uuid import uuid4

from gradio.components.plot import PlotData

from msademo.corruption import KINDS, MODALITIES, check_seed
from msademo.errors import InputError
from msademo.explain import Alignment
from msademo.guidance.given import Guidance
from msademo.results import ClipResult, Curve
from msademo.ui import alignment, figures, pictures
from msademo.ui.alignment import Look
from msademo.ui.clip_layout import ALIKE
from msademo.ui.clip_prompt import Sections, sections, told_now, told_panel, wording
from msademo.ui.guard import quiet
from msademo.ui.scales import scales
from msademo.ui.room import Kept


@dataclass(frozen=True)
class Controls:
    """What the sliders say. missing: a ratio a modality; kinds: a kind of corruption a modality."""

    missing: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 0.0))
    kinds: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(MODALITIES, "random"))
    seed: int = 0

    @classmethod
    def of(cls, text: float, audio: float, vision: float, kind: str, own_text: str, own_audio: str, own_vision: str, seed: float) -> "Controls":
        """From the page's widgets, in their order. InputError for an empty number field."""
        kinds = {m: kind if own == ALIKE else own for m, own in zip(MODALITIES, (own_text, own_audio, own_vision))}
        ratios = {m: 0.0 if value is None else float(value) for m, value in zip(MODALITIES, (text, audio, vision))}
        return cls(ratios, kinds, check_seed(seed))

    @property
    def shared(self) -> float | None:
        """The ratio all three have in common; None when they differ."""
        ratios = set(self.missing.values())
        return ratios.pop() if len(ratios) == 1 else None

    @property
    def curve_kind(self) -> str:
        """The curve takes tokens away; it bursts where all three do."""
        return "span" if set(self.kinds.values()) == {"span"} else "random"

    @property
    def on_curve(self) -> bool:
        return len(set(self.kinds.values())) == 1 and set(self.kinds.values()) <= set(KINDS)


@dataclass(frozen=True)
class Panels:
    """What the results column shows, in the order of its components."""

    score: str
    notes: str
    strip: str
    told: str
    map: PlotData | None
    map_text: str
    map_numbers: str
    curve: PlotData | None
    curve_text: str
    recovery: tuple[str, str, str]
    attention: tuple[PlotData | None, ...]
    attention_text: tuple[str, str, str]
    origin: str

    def values(self) -> list:
        flat: list = []
        for item in fields(self):
            value = getattr(self, item.name)
            flat += value if isinstance(value, tuple) else [value]
        return flat


PANELS = 10 + 3 * len(MODALITIES)


@dataclass(frozen=True)
class Opened:
    """What the page remembers of a clip: where it came from, what the transcript box held, the clip taken apart, a name for this
    opening of it, and the prompts written for it by what the boxes show of them."""

    path: str | None
    shown: str
    kept: Kept
    token: str = field(default_factory=lambda: uuid4().hex)
    written: dict[Sections, Guidance] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        self.keep(self.clip.guidance)

    @property
    def clip(self):
        """The OpenedClip; InputError if it had to make room."""
        return self.kept.clip

    def keep(self, guidance: Guidance) -> Sections:
        """Remember a prompt by what the boxes show of it, which is given back."""
        shown = wording(sections(guidance))
        self.written[shown] = guidance
        return shown


def curve_key(opened: Opened, controls: Controls, checkpoint: str) -> tuple[str, str, int, str]:
    """What a robustness curve was drawn for. checkpoint: the file that PGLH comes from."""
    return opened.token, controls.curve_kind, controls.seed, checkpoint


def still_true(drawn: tuple | None, opened: Opened | None, controls: Controls, checkpoint: str) -> Curve | None:
    """The curve last drawn, if it is of this clip, kind, seed and checkpoint: one asked for earlier may arrive after they changed."""
    return drawn[1] if drawn is not None and opened is not None and drawn[0] == curve_key(opened, controls, checkpoint) else None


def caption(text: str) -> str:
    return f'<p class="msa-say">{html.escape(text)}</p>'


def curve_panel(curve: Curve | None, controls: Controls, score: float) -> tuple[PlotData | None, str]:
    if curve is None:
        return None, quiet("The robustness curve is being drawn: fifty masks of growing size …")
    ratio = controls.shared if controls.on_curve else None
    return (figures.plot(figures.curve_figure(curve, ratio, score)),
            caption(figures.curve_sentence(curve, ratio, score, exact=set(controls.kinds.values()) <= set(KINDS))))


def map_panel(alignments: Mapping[str, Alignment], look: Look, opened) -> tuple[PlotData | None, str, str]:
    """The attention map chosen, the sentence under it and the numbers beside it; drawn from arrays that are kept."""
    found = alignments.get(look.source)
    look = look if found is None else look.within(found)
    why = alignment.cannot(found, look)
    if why:
        return None, caption(why), ""
    return (figures.plot(alignment.map_figure(found, look, opened)), *alignment.map_text(found, look))


def update(analyzer, opened, controls: Controls, curve: Curve | None = None, guidance: Guidance | None = None,
           look: Look = Look()) -> tuple[Panels, ClipResult]:
    """All that a slider move asks of the server: ask the models under the new mask, draw every panel that is seen. opened: an OpenedClip."""
    result = analyzer.analyze(opened, missing=controls.missing, kind=controls.kinds, seed=controls.seed, guidance=guidance)
    plots, texts = [], []
    for m in MODALITIES:
        attention = result.attention.get(m)
        if attention is None or not len(attention.labels):
            plots.append(None)
            texts.append(caption(f"This clip has no {figures.NAMES[m]}, so no prompt looks at it."))
        else:
            plots.append(figures.plot(figures.attention_figure(attention, m)))
            texts.append(caption(figures.attention_sentence(attention, m, result.alpha[m])))
    told = result.guidance
    panels = Panels(
        scales(result), pictures.notes_list([note for note in result.notes if told is None or note != told.note]), pictures.strip(opened, result),
        "" if told is None else told_panel(told), *map_panel(result.alignments, look, opened),
        *curve_panel(curve, controls, result.predictions["pglh"].score),
        tuple(pictures.recovery_maps(result.recovery.get(m), m, result.beta.get(m)) for m in MODALITIES),
        tuple(plots), tuple(texts), pictures.origin(result))
    return panels, result


def open_clip(analyzer, before: Opened | None, video: str | None, sound: str | None, transcript: str, say) -> Opened:
    """Take a clip apart, or only read the new words if it is the one already open."""
    path, given = video or sound, (transcript or "").strip()
    if path is None and not given:
        raise InputError("There is nothing to analyse yet; click an example, upload or record a clip, or type some words.")
    if before is not None and before.kept.here and before.path == path and path is not None and given:
        if given == before.shown:
            return before
        return Opened(path, given, Kept(analyzer.with_transcript(before.clip, given)))
    clip = analyzer.open(path, transcript=given or None, say=say)
    return Opened(path, given or " ".join(word.text for word in clip.clip.words), Kept(clip))


def first_boxes(before: Opened | None, now: Opened, boxes) -> Sections:
    """What the prompt's boxes hold once a clip is open: its own prompt, unless it is the same file and they were typed in."""
    if before is not None and before.path == now.path and told_now(before.written, boxes).source == "typed":
        return tuple(boxes)
    return boxes if before is now else sections(now.clip.guidance)

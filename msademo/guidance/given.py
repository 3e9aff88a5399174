"""Guidance as callers give it: a name, sections, or a text in the paper's form; and where a clip's guidance came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from msademo.errors import InputError, shown
from msademo.guidance.clips import CLIP_SOURCES, HEADING
from msademo.guidance.prompt import SECTIONS, Prompt, typed_prompt

COMPLETE, LEFT, PERSON, NOTHING = "the complete clip", "what is left of the clip", "a person", "nothing"
EMPTY = "The prompt is empty, so the teacher answers without a prompt."


@dataclass(frozen=True)
class Guidance:
    """What the teacher is told. prompt: None = nothing; written_from: one of COMPLETE, LEFT, PERSON, NOTHING; note: for the person."""

    prompt: Prompt | None
    written_from: str
    note: str = ""

    @property
    def source(self) -> str:
        return "none" if self.prompt is None else self.prompt.source

    @property
    def key(self) -> tuple[str, ...]:
        """What the text encoder reads, and so all that an answer depends on."""
        return () if self.prompt is None else self.prompt.sentences()

    def to_dict(self) -> dict:
        sections = {name: "" if self.prompt is None else getattr(self.prompt, name) for name in SECTIONS}
        return {"source": self.source, "written_from": self.written_from, **sections, "note": self.note}


def guided_by(prompt: Prompt, written_from: str) -> Guidance:
    """A prompt with its origin; one that says nothing is no prompt, and the note says so."""
    if prompt.empty:
        return Guidance(None, NOTHING, EMPTY)
    return Guidance(prompt, written_from, prompt.note)


def sections_of(text: str) -> dict[str, str]:
    """The sections of a text in the paper's form ("### Visual Cues ###" ...). What stands before the first heading, or a text without any,
    belongs to the multimodal cues; a heading that comes twice goes on with its section."""
    found = list(HEADING.finditer(text))
    starts, ends = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(text)]
    sections = dict.fromkeys(SECTIONS, "")
    for name, start, end in zip(["multimodal", *(match[1].lower() for match in found)], starts, ends):
        sections[name] = f"{sections[name]}\n{text[start:end].strip()}".strip()
    return sections


def given_guidance(given) -> Guidance | str | None:
    """None (the clip's own), a name of CLIP_SOURCES still to be written, or the Guidance that a Guidance, a Prompt, "none", a mapping of
    sections or a text stands for. InputError for anything else."""
    if given is None or isinstance(given, Guidance):
        return given
    if isinstance(given, Prompt):
        return guided_by(given, PERSON if given.source == "typed" else COMPLETE)
    if isinstance(given, str) and given.strip().lower() in CLIP_SOURCES:
        return given.strip().lower()
    if isinstance(given, str) and given.strip().lower() == "none":
        return Guidance(None, NOTHING)
    if isinstance(given, str):
        given = sections_of(given)
    if not isinstance(given, Mapping):
        raise InputError(f"Guidance must be {', '.join(CLIP_SOURCES)}, none, or a text to read, not {type(given).__name__}.")
    unknown = [name for name in given if name not in SECTIONS]
    if unknown:
        raise InputError(f"A prompt has no section {shown(unknown[0])}; its sections are {', '.join(SECTIONS)}.")
    return guided_by(typed_prompt(*(given.get(name) for name in SECTIONS)), PERSON)

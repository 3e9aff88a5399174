"""A prompt: what to look for in a clip, in the three sections of the PGMF paper (its Listing B.1 and Figure 5), and nothing but text.

Wherever a prompt comes from, it passes through `bounded`: control characters go, and what is longer than a section may be is cut, with
a note that says so. Nothing in a prompt is ever obeyed, looked up or run; the text encoder reads it sentence by sentence.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from msademo.errors import InputError

SECTIONS = ("visual", "language", "multimodal")
SOURCES = ("offline", "openai", "typed")
MAX_SENTENCES = 12          # a section; the paper's examples have some five
MAX_SENTENCE = 240          # characters; a longer one is read in parts, so that none outgrows the text encoder
MAX_SECTION = 20_000          # characters of a section looked at; far above what 12 sentences can hold

ENDS = re.compile(r"(?:[.!?]+[\"'”’)\]*_]*(?=\s)|[。！？；]+[”’」』）]*|\n)\s*")
MARKUP = re.compile(r"^\s*(?:[-*•+]|\d+[.)]|#+)\s+|[*_`#]{2,}|`")


@dataclass(frozen=True)
class Prompt:
    """source: where it comes from, one of SOURCES; note: what the person should know about it (cut, or why it is not what was asked for)."""

    visual: str
    language: str
    multimodal: str
    source: str
    note: str = ""

    @property
    def empty(self) -> bool:
        """No section says anything; the caller goes on without a prompt."""
        return not self.sentences()

    def sentences(self) -> tuple[str, ...]:
        """What the text encoder reads, section by section: at most 3 MAX_SENTENCES sentences of at most MAX_SENTENCE characters, without markup."""
        found = (MARKUP.sub("", part).strip() for name in SECTIONS for part in pieces(getattr(self, name)))
        return tuple(sentence for sentence in found if any(character.isalnum() for character in sentence))

    def text(self) -> str:
        """The paper's form."""
        return "\n".join(f"### {name.capitalize()} Cues ###\n{getattr(self, name).strip()}\n" for name in SECTIONS).strip()

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def pieces(section: str) -> list[str]:
    """A section cut after its sentences and lines, and overlong ones at blanks; joined, the pieces are the section again."""
    found, start = [], 0
    for end in [match.end() for match in ENDS.finditer(section)] + [len(section)]:
        while end - start > MAX_SENTENCE:
            blank = section.rfind(" ", start + 1, start + MAX_SENTENCE)
            cut = blank + 1 if blank > 0 else start + MAX_SENTENCE
            found.append(section[start:cut])
            start = cut
        if end > start:
            found.append(section[start:end])
        start = end
    return found


def clean(text: str) -> str:
    """Without control characters and halves of surrogate pairs, which no tokenizer takes; line ends as "\\n"."""
    text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text).encode("utf-8", "ignore").decode()
    return "".join(c for c in text if c in "\n\t" or c.isprintable() or c.isspace()).strip()


def bounded(visual: str, language: str, multimodal: str, source: str, note: str = "") -> Prompt:
    """A Prompt whose sections fit; the note says which were cut. InputError for what is no text."""
    kept, cut = {}, []
    for name, given in zip(SECTIONS, (visual, language, multimodal)):
        if given is not None and not isinstance(given, str):
            raise InputError(f"The {name} cues must be text, not {type(given).__name__}; type them as sentences.")
        section = clean((given or "")[:MAX_SECTION])
        parts = pieces(section)
        kept[name] = "".join(parts[:MAX_SENTENCES]).strip()
        if len(parts) > MAX_SENTENCES or len(given or "") > MAX_SECTION:
            cut.append(name)
    if cut:
        note = f"{note} The {' and '.join(cut)} cues are long; only their first {MAX_SENTENCES} sentences are used.".strip()
    return Prompt(**kept, source=source, note=note)


def typed_prompt(visual: str | None, language: str | None, multimodal: str | None) -> Prompt:
    """What a person typed, in any language; `empty` when there is nothing in it."""
    return bounded(visual, language, multimodal, "typed")

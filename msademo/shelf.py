"""The models of one folder, loaded together: encoders, fusion models, and the sentences on those that are not there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from msademo.backbones.expression import load_expression
from msademo.backbones.voice import Voice, beside, load_voice
from msademo.errors import InputError
from msademo.features.prompt import PromptReader
from msademo.features.text import load_text_encoder
from msademo.options import MODELS
from msademo.registry import load_fusion

FILES = {name: f"{name.replace('-', '_')}.safetensors" for name in MODELS}


@dataclass(frozen=True)
class Models:
    """What an Analyzer holds once it is warm: encoders, FusionModels by name, and what reads a prompt.

    absent: by name of a model that cannot answer, why. notes: the same for people, one sentence on all files that are not there.
    """

    text: object
    expression: object
    voice: Voice
    fusion: Mapping[str, object]
    read: PromptReader
    absent: Mapping[str, str]
    notes: tuple[str, ...]

    def chosen(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The models to ask, None = all there are; InputError when one was named that is not there."""
        for name in asked or ():
            if name in self.absent:
                raise InputError(self.absent[name])
        return asked if asked is not None else tuple(self.fusion)


def load_models(folder: Path, chosen: Mapping[str, str] = FILES) -> Models:
    """chosen: the file of each model. InputError, one sentence, when PGLH or an encoder is unusable; of PGMF's checkpoints each may be
    missing or unusable."""
    text, face = folder / "text.safetensors", folder / "face.safetensors"
    fusion, absent, files, notes = {}, {}, [], []
    for name, file in chosen.items():
        try:
            fusion[name] = load_fusion(folder / file, text, face, name)
        except InputError as error:
            if name == "pglh":
                raise
            absent[name] = str(error)
            if (folder / file).exists():
                notes.append(str(error))
            else:
                files.append(file)
    if files:
        many = len(files) > 1
        notes.insert(0, f"PGMF is left out{'' if many else ' in part'}: {' and '.join(files)} {'are' if many else 'is'} not among the checkpoints; "
                        f"train {'them' if many else 'it'} or restore {'them' if many else 'it'} from the repository.")
    encoder = load_text_encoder(text)
    return Models(encoder, load_expression(face), load_voice(beside(face)), fusion, PromptReader(encoder), absent, tuple(notes))


class Shelf:
    """A folder's models and which files they come from. Loaded at the first use, once, in any thread."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, dict(FILES)
        self._lock = threading.Lock()
        self._models: Models | None = None

    def warm(self) -> Models:
        """Load the models now. InputError says in one sentence which checkpoint is unusable and why."""
        with self._lock:
            if self._models is None:
                self._models = load_models(self.folder, self.files)
            return self._models

    def choose(self, name: str, file: str) -> None:
        """Use another file for a model from now on. InputError, and nothing changes, when it cannot be used."""
        files = {**self.files, name: file}
        models = load_models(self.folder, files)
        if name in models.absent:
            raise InputError(models.absent[name])
        with self._lock:
            self.files, self._models = files, models

"""Where the words of a pickle's samples get their features: fixed ones of the file, a BERT's, or a text encoder of ours.

With an encoder, missing words are taken away before it reads the sentence, as everywhere in this house. Fixed features have read the
whole sentence already; masking them leaks, and every report of such a run says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Sequence

import numpy as np
import torch
from torch import nn

from msademo.checkpoint import file_hash
from msademo.errors import InputError
from msademo.features.text import BATCH, TextTokens, load_text_encoder, pack
from msademo.transcript import split_words
from train.loop import best_device
from train.pickles import Split

UNKNOWN = 100               # [UNK] of bert-base-uncased and bert-base-chinese: what LNLN puts in a missing word's place
LONGEST = 512               # tokens a BERT has positions for
FIXED, BUNDLED = "pickle", "bundled"


class Encoder(Protocol):
    """What reads words: a TextEncoder of ours or a Bert."""

    dim: int

    def tokenize(self, words: Sequence[str]) -> TextTokens: ...
    def encode(self, tokens: Sequence[TextTokens], missing: Sequence[np.ndarray]) -> list[torch.Tensor]: ...


class Bert(nn.Module):
    """A frozen BERT of a folder or a hub, used like msademo's TextEncoder: tokens that are missing are not passed, the others keep
    their positions. A token is its own unit where a pickle's ids are read, a word is where a text is tokenised."""

    def __init__(self, name: str):
        super().__init__()
        try:
            from msademo.backbones.torchvision_trap import mend
            mend()
            from transformers import AutoModel, logging
        except ImportError as error:
            raise InputError("Reading words with a BERT needs transformers; run `pip install transformers==5.23.0`.") from error
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name, self._tokenizer = name, None
        if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():          # not to be asked of a hub
            raise InputError(f"There is no folder {name}; give --text-encoder a BERT's folder, its name at the hub, bundled, or pickle.")
        try:
            model = AutoModel.from_pretrained(name)
        except Exception as error:       # a folder may lack any file, and a hub fail in any way
            raise InputError(f"There is no BERT {name!r}: neither a folder with config.json and model.safetensors nor a model that the hub "
                             f"gives ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__}).") from error
        if model.config.model_type != "bert":
            raise InputError(f"{name} is a {model.config.model_type} model, whose ids and positions are others; give a BERT such as bert-base-uncased.")
        self.model = model.eval().requires_grad_(False)
        self.dim, self.vocabulary, self.pad = model.config.hidden_size, model.config.vocab_size, model.config.pad_token_id or 0

    @property
    def tokenizer(self):
        """Read when a text comes that has no ids yet."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self.name, use_fast=True)
            except Exception as error:
                raise InputError(f"The BERT {self.name!r} has no tokenizer beside it, and there are texts without ids to read; add its vocab.txt.") from error
        return self._tokenizer

    def tokenize(self, words: Sequence[str]) -> TextTokens:
        read = self.tokenizer(list(words), is_split_into_words=True, truncation=True, max_length=LONGEST)
        owners = np.array([-1 if owner is None else owner for owner in read.word_ids()])
        return TextTokens(np.array(read["input_ids"]), owners, owners, tuple(self.tokenizer.convert_ids_to_tokens(read["input_ids"])), len(words))

    @torch.no_grad()
    def encode(self, tokens: Sequence[TextTokens], missing: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """(T_i, dim) float32 of each text, zeros where tokens are missing."""
        features: list[torch.Tensor] = [torch.empty(0)] * len(tokens)
        order = np.argsort([len(t) - int(gone.sum()) for t, gone in zip(tokens, missing)], kind="stable")
        for start in range(0, len(order), BATCH):
            rows = order[start:start + BATCH]
            ids, places, there = pack([tokens[i] for i in rows], [missing[i] for i in rows], self.pad, self.model.device)
            readable = there.clone()
            readable[:, 0] |= ~there.any(1)          # a text with nothing left reads one padding, which is dropped below
            hidden = self.model(input_ids=ids, attention_mask=readable.long(), position_ids=places).last_hidden_state.float()
            for row, i in enumerate(rows):
                features[i] = hidden.new_zeros(len(tokens[i]), self.dim)
                features[i][places[row, there[row]]] = hidden[row, there[row]]
        return features

    def digest(self) -> str:
        """SHA-256 of the weights: how a checkpoint names the BERT it was trained with."""
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def load_encoder(name: str) -> tuple[Encoder | None, dict]:
    """The encoder called `name` on the best device, None for FIXED; and how a checkpoint names it.

    name: "pickle", "bundled" (the backbone as it came), a text checkpoint of ours (*.safetensors), or a BERT's folder or hub name.
    """
    if name == FIXED:
        return None, {"encoder": FIXED, "sha256": None}
    if name == BUNDLED or name.endswith(".safetensors"):
        path = None if name == BUNDLED else Path(name)
        return load_text_encoder(path).to(best_device()), {"encoder": name, "sha256": None if path is None else file_hash(path)}
    bert = Bert(name).to(best_device())
    return bert, {"encoder": name, "sha256": bert.digest()}


@dataclass(frozen=True)
class Texts:
    """The words of one split. tokens: of each sample; values: their fixed features (T_i, D), None where an encoder reads them."""

    tokens: Sequence[TextTokens]
    values: Sequence[np.ndarray] | None
    encoder: Encoder | None

    def features(self, rows: Sequence[int], gone: Sequence[np.ndarray], unknown: bool = False) -> list[torch.Tensor]:
        """(T_i, D) float32 of the samples `rows` under masks (T_i,) over tokens. unknown: missing ids become [UNK], which the encoder reads
        as LNLN's does, instead of being left out."""
        if self.values is not None:
            return [torch.tensor(self.values[i], device=best_device()) for i in rows]
        tokens = [self.tokens[i] for i in rows]
        if unknown:
            tokens = [replace(t, ids=np.where(mask, UNKNOWN, t.ids)) for t, mask in zip(tokens, gone)]
            gone = [np.zeros(len(t), dtype=bool) for t in tokens]
        return self.encoder.encode(tokens, gone)


def shortened(tokens: TextTokens, longest: int | None) -> TextTokens:
    """At most `longest` tokens; the last one (SEP) stays."""
    if longest is None or len(tokens) <= longest:
        return tokens
    keep = np.r_[:longest - 1, len(tokens) - 1]
    return TextTokens(tokens.ids[keep], tokens.first[keep], tokens.last[keep], tuple(tokens.pieces[i] for i in keep), tokens.words, tokens.cut)


def numbered(ids: np.ndarray, ends: bool) -> TextTokens:
    """Tokens that are their own units; with `ends` the first and the last are CLS and SEP, which are none."""
    units = np.arange(len(ids))
    if ends and len(ids) >= 2:
        units = np.r_[-1, np.arange(len(ids) - 2), -1]
    return TextTokens(ids, units, units, ("",) * len(ids), int(units.max(initial=-1)) + 1)


def read_texts(split: Split, encoder: Encoder | None, longest: int | None) -> Texts:
    """The words of a split for the chosen way of reading them. longest: the most tokens a model takes."""
    if encoder is None:
        if split.text is None:
            raise InputError(f"The split {split.name!r} has no text features (key 'text'); give --text-encoder a BERT, or bundled where there is raw_text.")
        tokens = []
        for i, length in enumerate(split.lengths["text"]):
            ids = split.bert[i, 0, :length] if split.bert is not None else np.zeros(length, np.int64)
            tokens.append(shortened(numbered(ids, split.bert is not None), longest))
        return Texts(tokens, [values[:len(t)] for values, t in zip(split.text, tokens)], None)
    if isinstance(encoder, Bert) and split.bert is not None:
        if split.bert[:, 0].max() >= encoder.vocabulary or split.bert.shape[2] > LONGEST:
            raise InputError(f"{split.name}/text_bert holds ids up to {split.bert[:, 0].max()} and {encoder.name} knows {encoder.vocabulary}; give the BERT the ids were made for.")
        return Texts([shortened(numbered(row[0, :length], True), longest) for row, length in zip(split.bert, split.lengths["text"])], None, encoder)
    if split.raw is None:
        raise InputError(f"The split {split.name!r} has no raw_text to read; give --text-encoder pickle for its features{', or a BERT for its ids' if split.bert is not None else ''}.")
    return Texts([shortened(encoder.tokenize(split_words(text)), longest) for text in split.raw], None, encoder)

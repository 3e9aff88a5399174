"""Guidance -> token features: what PGMF's teacher reads beside a clip, X_P of its equation (4)."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Sequence

import numpy as np
import torch

from msademo.features.text import TextEncoder, TextTokens
from msademo.guidance.prompt import Prompt

MAX_PROMPT_TOKENS = 256         # an offline prompt has some 110; what is typed or fetched may be longer, and its end is not read
REMEMBERED = 4096               # sentences; most sentences of offline prompts come again and again


class PromptReader:
    """prompt -> (T_P, D) features of its sentences' tokens, one sentence after another; (0, D) for None or an empty prompt.

    Each sentence is read alone, so that its features do not depend on its neighbours and can be remembered. They are rounded to half
    precision before any use: what was remembered and what is read now are the same numbers. Safe to use from several threads.
    """

    def __init__(self, encoder: TextEncoder, remembered: int = REMEMBERED):
        self.encoder, self.remembered = encoder, remembered
        self._features: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = Lock()

    def tokenize(self, sentence: str) -> TextTokens:
        return self.encoder.tokenize(sentence.split())

    def remember(self, sentence: str, tokens: TextTokens, features: torch.Tensor) -> torch.Tensor:
        """Keep what the encoder said of a sentence (T, D); returns the part of its words, without CLS and SEP."""
        kept = features[torch.from_numpy(tokens.first >= 0).to(features.device)].half().cpu()
        with self._lock:
            self._features[sentence] = kept
            self._features.move_to_end(sentence)
            while len(self._features) > self.remembered:
                self._features.popitem(last=False)
        return kept

    def read(self, sentences: Sequence[str]) -> list[torch.Tensor]:
        """(T_i, D) half precision of each sentence; those not remembered are read together."""
        found: dict[str, torch.Tensor] = {}
        with self._lock:
            for sentence in sentences:
                if sentence in self._features:
                    self._features.move_to_end(sentence)
                    found[sentence] = self._features[sentence]
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in found]
        if new:
            tokens = [self.tokenize(sentence) for sentence in new]
            for sentence, token, features in zip(new, tokens, self.encoder.encode(tokens, [np.zeros(len(t), dtype=bool) for t in tokens])):
                found[sentence] = self.remember(sentence, token, features)
        return [found[sentence] for sentence in sentences]

    def __call__(self, prompt: Prompt | None) -> torch.Tensor:
        chosen, total = [], 0
        for sentence in prompt.sentences() if prompt is not None else ():
            if total >= MAX_PROMPT_TOKENS:              # what would be cut off is not read in the first place
                break
            chosen.append(sentence)
            known = self._features.get(sentence)
            total += len(known) if known is not None else int((self.tokenize(sentence).first >= 0).sum())
        if not total:
            return torch.zeros(0, self.encoder.dim)
        return torch.cat(self.read(chosen))[:MAX_PROMPT_TOKENS].float()

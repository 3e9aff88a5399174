"""SPRO: semantic-guided progressive prompts for the sentiment of image-text posts.

Equation numbers are the paper's. E_T and E_V are towers (msademo/backbones/prompted.py) whose outputs are brought to one space of
unit vectors; sim is the cosine. Captions guide the image in training only; a prediction needs the post alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from msademo.backbones.prompted import Record, Tokens, Tower, encode
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.features.text import TextTokens

CLASSES = ("negative", "neutral", "positive")
STAGES = ("tone", "content", "emotion")
CAPTIONS = ("three", "single", "none")
TEMPLATE = "a sentiment of {}"


@dataclass(frozen=True)
class SPROConfig:
    """Choices of the method; the towers' own sizes are read from the towers.

    backbone: "bundled", or "open_clip:MODEL:TAG_OR_FILE". prompts: b. text_prompts, visual_prompts: whether that side has any.
    prompt_depth: D, how many of a tower's first blocks get prompts put in (the shared ones, then deep ones).
    joint: width of the common space; 0 takes the towers' own, which must then agree. text_blocks: how many
    of the bundled text tower's upper layers are under prompts; those below are its frozen stem. tuned_layers: how many of these (or of
    both open_clip towers' blocks), counted from the top, are trained; 0 = prompts only.
    image_*: the blocks over EfficientNet's grid (bundled). temperature: tau. captions: "three" stages, "single" (the three joined,
    from the start) or "none". stage_weights, stage_starts, ramp: w_k, s_k and T_ramp of (8), in epochs counted from 0.
    lambda_*: the weights of (13), and of a third, fused path the paper has not. image_weight: the image path's share of the
    fused logits, chosen on valid after training.
    """

    backbone: str = "bundled"
    prompts: int = 16
    text_prompts: bool = True
    visual_prompts: bool = True
    prompt_depth: int = 3
    joint: int = 192
    text_blocks: int = 3
    tuned_layers: int = 3
    image_width: int = 192
    image_depth: int = 2
    image_dropout: float = 0.3
    temperature: float = 0.07
    captions: str = "three"
    stage_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stage_starts: tuple[int, int, int] = (0, 1, 2)
    ramp: int = 2
    lambda_av: float = 1.0
    lambda_at: float = 1.0
    lambda_cap: float = 0.25
    lambda_fusion: float = 1.0
    label_smoothing: float = 0.1
    image_weight: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "stage_weights", tuple(self.stage_weights))       # JSON brings lists
        object.__setattr__(self, "stage_starts", tuple(self.stage_starts))
        sizes = (self.prompts, self.prompt_depth, self.text_blocks, self.image_width, self.image_depth, self.ramp)
        weights = (*self.stage_weights, self.lambda_av, self.lambda_at, self.lambda_cap, self.lambda_fusion, self.joint, self.tuned_layers)
        if min(sizes) < 1 or min(weights) < 0 or not self.temperature > 0:
            raise InputError(f"SPRO cannot be built from {asdict(self)}; sizes and the temperature must be positive, weights not negative.")
        if len(self.stage_weights) != len(STAGES) or len(self.stage_starts) != len(STAGES) or list(self.stage_starts) != sorted(set(self.stage_starts)):
            raise InputError(f"SPRO's stages need a weight and a start each, and start one after the other; {self.stage_starts} do not.")
        if self.captions not in CAPTIONS:
            raise InputError(f"SPRO's captions may be {', '.join(CAPTIONS)}; {self.captions!r} is none of these.")
        if not (0 <= self.label_smoothing < 1 and 0 <= self.image_dropout < 1 and 0 <= self.image_weight <= 1):
            raise InputError("SPRO's label smoothing and dropout must be in [0, 1) and the image's weight in [0, 1].")


@dataclass(frozen=True)
class PostBatch:
    """Posts for training. text: what the text stem made of the words left. patches (B, P, C), missing (B, P) bool. label (B,) int64
    into CLASSES. captions: per stage the distinct captions' pooled embeddings (N, d) and whose is which (B,), or None for a stage
    that has not begun. epoch: from 0."""

    text: Tokens
    patches: torch.Tensor
    missing: torch.Tensor
    label: torch.Tensor
    captions: Sequence[tuple[torch.Tensor, torch.Tensor] | None] = ()
    epoch: int = 0


@dataclass(frozen=True)
class Prediction:
    """Probabilities (B, 3) in the order of CLASSES: of each path, None for a half of the post that is absent, and of their fusion."""

    image: torch.Tensor | None
    text: torch.Tensor | None
    fusion: torch.Tensor


def stage_factors(config: SPROConfig, epoch: int) -> tuple[float, ...]:
    """beta_k of (8), one a caption loss; a single stage has the first one's start and all weights."""
    if config.captions == "none":
        return ()
    single = config.captions == "single"
    stages = [(sum(config.stage_weights), config.stage_starts[0])] if single else zip(config.stage_weights, config.stage_starts)
    return tuple(w * min(1.0, max(0.0, (epoch - s + 1) / config.ramp)) for w, s in stages)                  # (8)


def stage_texts(config: SPROConfig, captions: Sequence[str]) -> tuple[str, ...]:
    """A post's captions (tone, content, emotion) as the losses want them: one a stage, or all in one."""
    return {"three": tuple(captions), "single": (" ".join(captions),), "none": ()}[config.captions]


class SPRO(nn.Module):
    """Two towers under shared and deep prompts, and the class prototypes between them."""

    classes = CLASSES

    def __init__(self, config: SPROConfig, text: Tower, image: Tower, meta: Mapping | None = None):
        super().__init__()
        self.config, self.text, self.image, self.meta = config, text, image, dict(meta or {})
        count = config.prompts
        deep = lambda tower: nn.Parameter(torch.randn(min(config.prompt_depth, tower.depth) - 1, count, tower.width) * 0.02)
        self.shared_prompt = nn.Parameter(torch.randn(count, text.width) * 0.02)                            # theta
        self.coupling = nn.Linear(text.width, image.width)                                                  # F
        self.text_prompt, self.image_prompt = deep(text), deep(image)                                       # (5)
        if not config.joint and text.dim != image.dim:
            raise InputError(f"The towers end in {text.dim} and {image.dim} numbers; give the common space a width (joint).")
        project = lambda tower: nn.Linear(tower.dim, config.joint) if config.joint else nn.Identity()
        self.text_projection, self.image_projection = project(text), project(image)
        self.templates = [text.tokenize(post_words(TEMPLATE.format(name))) for name in CLASSES]
        self._remembered: torch.Tensor | None = None

    def train(self, mode: bool = True):
        self._remembered = None
        return super().train(mode)

    def lr_scale(self, name: str) -> float:
        """New parts learn twenty times as fast as layers that come trained."""
        return 1.0 if name.startswith(("text.", "image.tuned.")) else 20.0

    def text_prompts(self) -> tuple[torch.Tensor, ...]:
        return (self.shared_prompt, *self.text_prompt) if self.config.text_prompts else ()

    def image_prompts(self) -> tuple[torch.Tensor, ...]:
        return (self.coupling(self.shared_prompt), *self.image_prompt) if self.config.visual_prompts else ()   # (3)

    def join_text(self, pooled: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.text_projection(pooled), dim=-1)

    def forward_text(self, tokens: Tokens, record: Record | None = None) -> torch.Tensor:
        """(2), and (1) for templates: unit vectors (B, J)."""
        return self.join_text(encode(self.text, tokens, self.text_prompts(), record))

    def forward_image(self, tokens: Tokens, record: Record | None = None) -> torch.Tensor:
        """(4): unit vectors (B, J)."""
        return F.normalize(self.image_projection(encode(self.image, tokens, self.image_prompts(), record)), dim=-1)

    def encode_text(self, texts: Sequence[TextTokens], missing: Sequence[np.ndarray] | None = None) -> torch.Tensor:
        """Tokenised posts -> (B, J); missing: a (T_i,) bool array a text, True = not to be read (TextTokens.missing)."""
        return self.forward_text(self.text.tokens(*self.text.stem(texts, missing)))

    def encode_image(self, patches: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
        """Patches (B, P, C) of the image tower's `patches`, missing (B, P) bool -> (B, J)."""
        return self.forward_image(self.image.tokens(patches, missing))

    def pool_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """Captions -> (N, d) pooled embeddings of E_T, without prompts: (9) gives a caption none."""
        return encode(self.text, self.text.tokens(*self.text.stem([self.text.tokenize(post_words(caption)) for caption in captions])))

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """(N, J) unit vectors, to hold against an image's."""
        return self.join_text(self.pool_captions(captions))

    def prototypes(self) -> torch.Tensor:
        """(1): the class prototypes (3, J), in the order of CLASSES; remembered while the model is not training."""
        if self.training or torch.is_grad_enabled():
            return self.encode_text(self.templates)
        if self._remembered is None:
            self._remembered = self.encode_text(self.templates)
        return self._remembered

    def logits(self, embedded: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        return embedded @ prototypes.T / self.config.temperature

    def fuse(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.config.image_weight * image + (1 - self.config.image_weight) * text

    @torch.no_grad()
    def predict(self, image: torch.Tensor | None, text: torch.Tensor | None) -> Prediction:
        """Of embeddings (B, J); None for a half that is absent, whose place in the fusion the other takes."""
        if image is None and text is None:
            raise InputError("Nothing of the post is left; give a picture or a text, or take less away.")
        prototypes = self.prototypes()
        by_path = [None if z is None else self.logits(z, prototypes) for z in (image, text)]
        fused = self.fuse(*by_path) if None not in [z if z is None else 0 for z in by_path] else next(z for z in by_path if z is not None)
        image_probabilities, text_probabilities = (None if z is None else z.softmax(-1) for z in by_path)
        return Prediction(image_probabilities, text_probabilities, fused.softmax(-1))

    def caption_loss(self, image: torch.Tensor, captions: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """(9): each image (B, J) against the batch's distinct captions (N, d); own (B,) says which is its. Two posts with the same
        caption are no negatives of each other."""
        return F.cross_entropy(image @ self.join_text(captions).T / self.config.temperature, own)

    def loss(self, batch: PostBatch) -> dict[str, torch.Tensor]:
        """(8)-(13); "total" is what to minimise, the others are its parts before weighting."""
        config, prototypes = self.config, self.prototypes()
        image, text = self.forward_image(self.image.tokens(batch.patches, batch.missing)), self.forward_text(batch.text)
        image_logits, text_logits = self.logits(image, prototypes), self.logits(text, prototypes)
        aligned = lambda logits: F.cross_entropy(logits, batch.label, label_smoothing=config.label_smoothing)
        parts = {"image": aligned(image_logits), "text": aligned(text_logits)}                              # (11), (12)
        total = config.lambda_av * parts["image"] + config.lambda_at * parts["text"]
        if config.lambda_fusion:
            parts["fusion"] = aligned(self.fuse(image_logits, text_logits))
            total = total + config.lambda_fusion * parts["fusion"]
        if batch.captions:
            parts["captions"] = sum((beta * self.caption_loss(image, *stage) for beta, stage in             # (10)
                                     zip(stage_factors(config, batch.epoch), batch.captions) if beta), start=image.new_zeros(()))
            total = total + config.lambda_cap * parts["captions"]                                           # (13)
        return {"total": total, **parts}

"""PGLH: Prompt-Guided Low-level recovery and High-level fusion for incomplete multimodal sentiment analysis.

Equation numbers are the paper's. Inputs are the standardised token features Z_m (1) of each modality, with what is missing
(True = missing) and what is padding (True = padding) apart. Only visible tokens are attended; that is the batched form of
keeping the visible tokens alone. A modality with no visible token is carried by a learnt "absent" token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Mapping

import torch
from torch import nn

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.models.layers import Attention, EncoderLayer, absent_slot, positions, stretch, visible_mean


@dataclass(frozen=True)
class PGLHConfig:
    """Sizes and choices; `dims` are the widths of the token features, read from the data.

    pcm2_prompts: prompt tokens f_m^p a modality in (5); 0 = recovery without the words' guidance (4). ubpf_prompts: prompt tokens f_m^(0) a
    modality in (11); 0 = no UBPF, (15) pools H_m alone. decoder_layers: 0 = no decoder, a linear map recovers from H_m and mask tokens.
    lambda_sp, lambda_mask, lambda_global: the weights of (17). decoder_in_prediction: fill the missing places with the
    decoder's output and encode again before UBPF (the paper leaves the decoder out of inference).
    text_noise: standard deviation of Gaussian noise on text features in training; the tuned encoder knows its training sentences.
    """

    dims: Mapping[str, int] = field(default_factory=lambda: {"text": 384, "audio": 33, "vision": 71})
    width: int = 64
    heads: int = 4
    feed_forward: int = 128
    encoder_layers: int = 1
    decoder_layers: int = 1
    pcm2_prompts: int = 8
    ubpf_prompts: int = 8
    dropout: float = 0.1
    text_noise: float = 0.0
    lambda_sp: float = 1.0
    lambda_mask: float = 0.05
    lambda_global: float = 0.05
    decoder_in_prediction: bool = False

    def __post_init__(self):
        sizes = (self.width, self.heads, self.feed_forward, self.encoder_layers)
        parts = (self.decoder_layers, self.pcm2_prompts, self.ubpf_prompts)
        if set(self.dims) != set(MODALITIES) or min(self.dims.values()) < 1:
            raise InputError(f"PGLH needs a positive width for each of {', '.join(MODALITIES)}; {dict(self.dims)} is not that.")
        if min(sizes) < 1 or min(parts) < 0 or self.width % self.heads or not 0 <= self.dropout < 1 or self.text_noise < 0:
            raise InputError(f"PGLH cannot be built from {asdict(self)}; sizes must be positive and heads divide the width.")
        if min(self.lambda_sp, self.lambda_mask, self.lambda_global) < 0:
            raise InputError("PGLH's loss weights must not be negative.")


@dataclass(frozen=True)
class Batch:
    """What a fusion model reads. Per modality: values (B, T, D) float32 standardised, missing (B, T) bool, padding (B, T) bool.

    target, for training: the values before corruption (for text, of the pass that read every word). lacking (B, T) bool a modality: what the
    clip itself has not (a frame without a face, words that are none), which has no target; None = nothing. score: (B,) float.
    prompt, for a guided model: features of the guidance's tokens (B, T_P, D_text) float32 standardised, with prompt_padding
    (B, T_P) bool; a clip whose places are all padding has no guidance, and None means that none has.
    """

    values: Mapping[str, torch.Tensor]
    missing: Mapping[str, torch.Tensor]
    padding: Mapping[str, torch.Tensor]
    target: Mapping[str, torch.Tensor] | None = None
    score: torch.Tensor | None = None
    prompt: torch.Tensor | None = None
    prompt_padding: torch.Tensor | None = None
    lacking: Mapping[str, torch.Tensor] | None = None

    def hidden(self, modality: str) -> torch.Tensor:
        return self.missing[modality] | self.padding[modality]

    def real(self, modality: str) -> torch.Tensor:
        """(B, T) bool: the tokens that the complete clip has."""
        real = ~self.padding[modality]
        return real if self.lacking is None else real & ~self.lacking[modality]


@dataclass(frozen=True)
class Encoded:
    """H_m of one modality with a slot for the "absent" token in front: tokens (B, 1 + T, d), hidden (B, 1 + T) bool."""

    tokens: torch.Tensor
    hidden: torch.Tensor


@dataclass(frozen=True)
class Explained:
    """What the demo shows of one forward pass.

    score: (B,). recovered: per modality (B, T, D), the decoder's output. self_attention, language_attention: per modality
    the UBPF weights of (12) and of (13)/(14), averaged over heads, (B, P, T) and (B, P, T [+ T_t]); a column a token, without
    the "absent" slots (their share is what a row lacks to one). alpha, beta: the learnt mixing numbers. A part that the config
    leaves out has neither weights nor numbers.
    """

    score: torch.Tensor
    recovered: dict[str, torch.Tensor]
    self_attention: dict[str, torch.Tensor]
    language_attention: dict[str, torch.Tensor]
    alpha: dict[str, float]
    beta: dict[str, float]


class ModalityEncoder(nn.Module):
    """(2)-(3): features to the shared width, positions, then attention among the visible tokens only."""

    def __init__(self, config: PGLHConfig, dim: int):
        super().__init__()
        self.embed = nn.Linear(dim, config.width)
        self.absent_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.layers = nn.ModuleList([EncoderLayer(config.width, config.heads, config.feed_forward, config.dropout)
                                     for _ in range(config.encoder_layers)])
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: torch.Tensor, hidden: torch.Tensor) -> Encoded:
        x = self.embed(values)
        x = x + positions(x.shape[1], x.shape[2], x.device)
        x, hidden = absent_slot(x, hidden, self.absent_token)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, hidden)
        return Encoded(self.norm(x), hidden)


class Decoder(nn.Module):
    """(4), (8): mask tokens go where tokens are missing, positions again, a light Transformer, back to the feature's width."""

    def __init__(self, config: PGLHConfig, dim: int):
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.layers = nn.ModuleList([EncoderLayer(config.width, config.heads, config.feed_forward, config.dropout)
                                     for _ in range(config.decoder_layers)])
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, dim)

    def forward(self, encoded: Encoded, padding: torch.Tensor) -> torch.Tensor:
        x = torch.where(encoded.hidden[..., None], self.mask_token, encoded.tokens)
        x[:, 1:] = x[:, 1:] + positions(x.shape[1] - 1, x.shape[2], x.device)
        hidden = torch.cat([encoded.hidden[:, :1], padding], dim=1)              # mask tokens are looked at, padding is not
        for layer in self.layers:
            x = layer(x, hidden)
        return self.out(self.norm(x[:, 1:]))


class PGLH(nn.Module):
    """PCM2 (low-level recovery) and UBPF (high-level fusion) over one batch; see the paper's Figure 1."""

    counted = 1 + 2 * len(MODALITIES)            # numbers that `counts` gives

    def __init__(self, config: PGLHConfig):
        super().__init__()
        self.config = config
        per_modality = lambda build, names=MODALITIES: nn.ModuleDict({m: build(m) for m in names})
        attention = lambda _: Attention(config.width, config.heads, config.dropout)
        prompts = lambda count, names: nn.ParameterDict({m: nn.Parameter(torch.randn(count, config.width) * 0.5) for m in names})
        number = lambda names: nn.ParameterDict({m: nn.Parameter(torch.zeros(())) for m in names})     # sigmoid(0) = 0.5
        guided, refined = ("audio", "vision") if config.pcm2_prompts else (), MODALITIES if config.ubpf_prompts else ()
        self.encoders = per_modality(lambda m: ModalityEncoder(config, config.dims[m]))
        self.decoders = per_modality(lambda m: Decoder(config, config.dims[m]))
        self.pcm2_prompt = prompts(config.pcm2_prompts, guided)
        self.pcm2_attention = per_modality(attention, guided)
        self.beta_raw = number(guided)
        self.ubpf_prompt = prompts(config.ubpf_prompts, refined)
        self.self_guided = per_modality(attention, refined)
        self.language_guided = per_modality(attention, refined)
        self.alpha_raw = number(refined)
        self.score = nn.Linear(config.width, 1)

    def forward_encoders(self, batch: Batch) -> dict[str, Encoded]:
        encoded = {}
        for m in MODALITIES:
            values = batch.values[m].masked_fill(batch.hidden(m)[..., None], 0.0)
            if m == "text" and self.training and self.config.text_noise:
                values = values + torch.randn_like(values) * self.config.text_noise
            encoded[m] = self.encoders[m](values, batch.hidden(m))
        return encoded

    def forward_recovery(self, encoded: dict[str, Encoded], batch: Batch) -> dict[str, torch.Tensor]:
        """PCM2 (4)-(8): every modality rebuilt, (B, T, D) each; voice and face guided by the words that are left."""
        recovered, text = {}, encoded["text"]
        for m in MODALITIES:
            here = encoded[m]
            if m in self.pcm2_prompt:
                prompt = self.pcm2_prompt[m].expand(len(here.tokens), -1, -1)
                guided, _ = self.pcm2_attention[m](prompt, text.tokens, text.hidden)                  # (5), (6)
                lengths = 1 + (~batch.padding[m]).sum(1)
                beta = torch.sigmoid(self.beta_raw[m])
                mixed = (1 - beta) * here.tokens + beta * stretch(guided, lengths, here.tokens.shape[1])   # (7)
                here = Encoded(mixed, here.hidden)
            recovered[m] = self.decoders[m](here, batch.padding[m])
        return recovered

    def forward_fusion(self, encoded: dict[str, Encoded], weights: bool = False):
        """UBPF (11)-(16): the score (B,), and per modality the weights of the two stages when asked for."""
        text, pooled, stages = encoded["text"], 0.0, {}
        for m in MODALITIES:
            here = encoded[m]
            if m not in self.ubpf_prompt:
                pooled = pooled + visible_mean(here.tokens, here.hidden)
                continue
            prompt = self.ubpf_prompt[m].expand(len(here.tokens), -1, -1)
            first, own = self.self_guided[m](prompt, here.tokens, here.hidden, weights)               # (11), (12)
            memory, hidden = here.tokens, here.hidden
            if m != "text":
                memory, hidden = torch.cat([memory, text.tokens], dim=1), torch.cat([hidden, text.hidden], dim=1)
            aligned, language = self.language_guided[m](first, memory, hidden, weights)
            alpha = torch.sigmoid(self.alpha_raw[m])
            final = alpha * aligned + (1 - alpha) * first                                             # (13), (14)
            none = here.hidden.new_zeros(len(final), final.shape[1])
            pooled = pooled + visible_mean(torch.cat([final, here.tokens], dim=1), torch.cat([none, here.hidden], dim=1))   # (15)
            stages[m] = (own, language)
        return self.score(pooled)[:, 0], stages                                                       # (16)

    def refill(self, encoded: dict[str, Encoded], batch: Batch) -> dict[str, Encoded]:
        """The decoder put back into prediction: missing places take the recovered features and are encoded like any other."""
        recovered = self.forward_recovery(encoded, batch)
        return {m: self.encoders[m](torch.where(batch.missing[m][..., None], recovered[m], batch.values[m]), batch.padding[m])
                for m in MODALITIES}

    def forward(self, batch: Batch) -> torch.Tensor:
        """Scores (B,) on the data set's scale; the decoder is left out unless the config puts it back."""
        encoded = self.forward_encoders(batch)
        if self.config.decoder_in_prediction:
            encoded = self.refill(encoded, batch)
        return self.forward_fusion(encoded)[0]

    def counts(self, batch: Batch) -> torch.Tensor:
        """What the means of `loss` divide by, (1 + 2 * 3,): clips, then a modality's real and its missing tokens. The losses of parts of a batch,
        with the sum of the parts' counts, add up to the loss of the whole."""
        real = [batch.real(m) for m in MODALITIES]
        return torch.stack([batch.score.new_tensor(len(batch.score)), *(tokens.sum() for m, r in zip(MODALITIES, real) for tokens in (r, r & batch.missing[m]))])

    def loss(self, batch: Batch, counts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """(9), (10), (17), each reconstruction loss a mean over a modality's feature dimensions and summed over modalities;
        "total" is what to minimise. Padding and what a clip itself lacks never count, and a batch without a missing token has a mask loss of 0.
        counts: of the whole batch, where this is a part of one."""
        encoded = self.forward_encoders(batch)
        recovered = self.forward_recovery(encoded, batch)
        mask_loss, global_loss = 0.0, 0.0
        for number, m in enumerate(MODALITIES):
            error = (recovered[m] - batch.target[m]).square().mean(-1)                                # (B, T)
            real = batch.real(m)
            gone = batch.missing[m] & real
            all_real, all_gone = (real.sum(), gone.sum()) if counts is None else counts[1 + 2 * number:3 + 2 * number]
            global_loss = global_loss + (error * real).sum() / all_real.clamp(min=1)                  # (9)
            mask_loss = mask_loss + (error * gone).sum() / all_gone.clamp(min=1)                      # (10)
        fused = self.refill(encoded, batch) if self.config.decoder_in_prediction else encoded
        prediction = (self.forward_fusion(fused)[0] - batch.score).abs()
        prediction = prediction.mean() if counts is None else prediction.sum() / counts[0]
        c = self.config
        total = c.lambda_sp * prediction + c.lambda_mask * mask_loss + c.lambda_global * global_loss  # (17)
        return {"total": total, "prediction": prediction, "mask": mask_loss, "global": global_loss}

    @torch.no_grad()
    def explain(self, batch: Batch) -> Explained:
        """The score with everything the demo shows beside it."""
        encoded = self.forward_encoders(batch)
        recovered = self.forward_recovery(encoded, batch)
        fused = self.refill(encoded, batch) if self.config.decoder_in_prediction else encoded
        score, stages = self.forward_fusion(fused, weights=True)
        own, language = {}, {}
        for m in stages:
            first, second = (w.mean(1) for w in stages[m])                                            # over heads
            length = batch.values[m].shape[1]
            own[m] = first[..., 1:]
            language[m] = second[..., 1:1 + length] if m == "text" else torch.cat([second[..., 1:1 + length], second[..., 2 + length:]], -1)
        return Explained(score, recovered, own, language,
                         {m: torch.sigmoid(raw).item() for m, raw in self.alpha_raw.items()},
                         {m: torch.sigmoid(raw).item() for m, raw in self.beta_raw.items()})

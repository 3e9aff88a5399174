"""PGMF: a Prompt-Guided Multimodal Framework - a teacher whose attention is conditioned on guidance, and a student without it.

Equation numbers are the paper's. Inputs are the standardised token features X_m, with what is missing (True = missing) and what
is padding (True = padding) apart, and for the teacher the features X_P of the guidance's tokens. Words query voice and face; both
aligned sequences meet in a Transformer whose one extra token carries the answer. A modality with no visible token is carried by a
learnt "absent" token in a slot of its own, so no row of a softmax is ever empty.

Where the paper is silent: sources are normalised once, after their embedding, and every alignment layer reads them so; queries are
normalised in each layer (pre-norm). The guidance's learnt tokens are brought to each clip's number of words by linear interpolation.
The biases of Q_P and K start where Delta is about 1, so that W_con starts near softmax(W) instead of near a flat row.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.models.layers import EncoderLayer, absent_slot, positions, stretch, visible_first
from msademo.models.pglh import Batch

SOURCES = ("vision", "audio")           # beta in (5)-(7); the words are always alpha


@dataclass(frozen=True)
class PGMFConfig:
    """Sizes and choices; `dims` are the widths of the token features, read from the data.

    guided: the teacher (True) or the student, which lacks prompt embedding and Q_P. heads heads of head_width in every attention but
    the fusion's (fusion_heads). feed_forward: width of the embeddings' MLPs; alignment_ and fusion_feed_forward: of the others. embed_layers: Transformer layers of the voice's and
    the face's embedding, the words having been through a Transformer already. lengths: places of learnt position tables per
    modality, as the paper's data sets are cut to; None gives sinusoidal positions, to which longer clips are no stranger.
    prompt_tokens: learnt tokens that gather the guidance in (4). delta_from: what Q_P meets in Delta, "keys" or "values".
    alpha, beta: weights of (13).
    """

    guided: bool = True
    dims: Mapping[str, int] = field(default_factory=lambda: {"text": 384, "audio": 33, "vision": 71})
    width: int = 64
    heads: int = 4
    head_width: int = 32
    feed_forward: int = 128
    alignment_feed_forward: int = 128
    fusion_feed_forward: int = 128
    embed_layers: int = 1
    alignment_layers: int = 6
    fusion_layers: int = 6
    fusion_heads: int = 4
    prompt_layers: int = 2
    prompt_tokens: int = 16
    lengths: Mapping[str, int] | None = None
    dropout: float = 0.1
    delta_from: str = "keys"
    alpha: float = 100.0
    beta: float = 4.0

    def __post_init__(self):
        for sizes in (self.dims, self.lengths):
            if sizes is not None and (set(sizes) != set(MODALITIES) or min(sizes.values()) < 1):
                raise InputError(f"PGMF needs a positive number for each of {', '.join(MODALITIES)}; {dict(sizes)} is not that.")
        sizes = (self.width, self.heads, self.head_width, self.feed_forward, self.alignment_feed_forward, self.fusion_feed_forward,
                 self.embed_layers, self.alignment_layers, self.fusion_layers, self.fusion_heads, self.prompt_layers, self.prompt_tokens)
        if min(sizes) < 1 or self.width % 2 or not 0 <= self.dropout < 1 or min(self.alpha, self.beta) < 0:
            raise InputError(f"PGMF cannot be built from {asdict(self)}; sizes must be positive, the width even, loss weights not negative.")
        if self.delta_from not in ("keys", "values"):
            raise InputError(f"Delta is taken against keys or values, not {self.delta_from!r}.")


STUDENT_LAYERS = {"alignment_layers": 2, "fusion_layers": 2}          # Table 6; the teacher's depths are PGMFConfig's defaults

# The paper's data sets (Table 6): feature widths, lengths they are cut to, and alpha, beta. Heads and MLPs
# of the fusion are not in the paper; with these the parameter counts of its Tables 1-3 come out. SIMS has wide MLPs in the alignment.
PAPER = {
    "mosi": dict(dims={"text": 768, "audio": 5, "vision": 20}, lengths={"text": 50, "audio": 375, "vision": 500}, fusion_heads=6),
    "mosei": dict(dims={"text": 768, "audio": 74, "vision": 35}, lengths={"text": 50, "audio": 500, "vision": 500}, fusion_heads=6),
    "sims": dict(dims={"text": 768, "audio": 33, "vision": 709}, lengths={"text": 50, "audio": 400, "vision": 55}, alpha=60.0, beta=8.0,
                 alignment_feed_forward=768, fusion_feed_forward=64),
}


def paper_config(corpus: str, guided: bool) -> PGMFConfig:
    """The paper's teacher or student of "mosi", "mosei" or "sims"."""
    if corpus not in PAPER:
        raise InputError(f"The paper's data sets are {', '.join(PAPER)}, not {corpus!r}.")
    depths = {} if guided else {**STUDENT_LAYERS, **({"alignment_layers": 1} if corpus == "mosei" else {})}
    heads = {"fusion_heads": 8 if guided else 4} if corpus == "sims" else {}
    return PGMFConfig(guided=guided, prompt_tokens=50, **{**PAPER[corpus], **depths, **heads})


@dataclass(frozen=True)
class Aligned:
    """What one forward pass gives beside the score (B,).

    fusion: (B, d), H_fusion. maps: per source the attention of the layers asked for, each (B, heads, Q, T), over the slot of the
    "absent" token and the tokens - all of them, or only each clip's visible ones where they were packed. rows (B, Q), columns per
    source (B, T): bool, True = hidden.
    """

    score: torch.Tensor
    fusion: torch.Tensor
    maps: dict[str, list[torch.Tensor]]
    rows: torch.Tensor
    columns: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Alignments:
    """What the demo shows. score (B,), fusion (B, d), maps per source (B, layers, heads, T_text, T_source): W_con (6), or
    softmax(W) where there is no guidance. Rows of missing or padded words and columns of missing or padded tokens are 0; the slots
    of the "absent" tokens are left out, so a map is 0 altogether where its words or its source are absent."""

    score: torch.Tensor
    fusion: torch.Tensor
    maps: dict[str, torch.Tensor]


def encoder_layers(config: PGMFConfig, count: int, heads: int, feed_forward: int) -> nn.ModuleList:
    """Dropout behind the attention, not on its weights: a CPU is twice as fast so."""
    return nn.ModuleList([EncoderLayer(config.width, heads, feed_forward, config.dropout, config.head_width, attention_dropout=0.0)
                          for _ in range(count)])


@dataclass(frozen=True)
class Embedded:
    """S_m of one modality, the slot of its "absent" token in front: tokens (B, Q, d), hidden (B, Q) bool; places (B, Q), where in
    the slot and the tokens they come from when only the visible ones are carried, else None."""

    tokens: torch.Tensor
    hidden: torch.Tensor
    places: torch.Tensor | None

    def pick(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of x (B, 1 + T, d) that belong to these tokens."""
        return x if self.places is None else x.gather(1, self.places[..., None].expand(-1, -1, x.shape[-1]))


class Embedding(nn.Module):
    """(1): features to the shared width, positions, `layers` Transformer layers; values (B, T, D) -> S_m."""

    def __init__(self, config: PGMFConfig, modality: str, layers: int):
        super().__init__()
        self.modality = modality
        self.linear = nn.Linear(config.dims[modality], config.width)
        self.absent_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.places = nn.Parameter(torch.randn(config.lengths[modality], config.width) * 0.02) if config.lengths else None
        self.layers = encoder_layers(config, layers, config.heads, config.feed_forward)
        self.norm = nn.LayerNorm(config.width) if layers else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: torch.Tensor, hidden: torch.Tensor, packed: bool) -> Embedded:
        x = self.linear(values.masked_fill(hidden[..., None], 0.0))
        length = x.shape[1]
        if self.places is None:
            x = x + positions(length, x.shape[2], x.device)
        elif length <= len(self.places):
            x = x + self.places[:length]
        else:
            raise InputError(f"This PGMF reads at most {len(self.places)} {self.modality} tokens and was given {length}; cut the clip.")
        x, hidden = absent_slot(x, hidden, self.absent_token)
        places = visible_first(hidden) if packed else None
        if packed:
            x, hidden = Embedded(x, hidden, places).pick(x), hidden.gather(1, places)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, hidden)
        return Embedded(self.norm(x), hidden, places)


class PromptEmbedding(nn.Module):
    """(4): learnt tokens gather the guidance; X_P (B, T_P, D) -> S_P (B, places, d), the tokens brought to each clip's length."""

    def __init__(self, config: PGMFConfig):
        super().__init__()
        self.linear = nn.Linear(config.dims["text"], config.width)
        self.tokens = nn.Parameter(torch.randn(config.prompt_tokens, config.width) * 0.5)
        self.layers = encoder_layers(config, config.prompt_layers, config.heads, config.feed_forward)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, prompt: torch.Tensor, padding: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        count = len(self.tokens)
        x = self.linear(prompt.masked_fill(padding[..., None], 0.0))
        x = x + positions(x.shape[1], x.shape[2], x.device)
        x = self.dropout(torch.cat([self.tokens.expand(len(x), -1, -1), x], dim=1))
        hidden = torch.cat([padding.new_zeros(len(x), count), padding], dim=1)
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, hidden, count if number == len(self.layers) else None)
        return stretch(self.norm(x), lengths, longest)


class ConditionalAttention(nn.Module):
    """(5), (6) and W_con V: x (B, Q, d) queries, source (B, T, d) keys and values, guided by S_P (B, Q, d) where there is one."""

    def __init__(self, config: PGMFConfig):
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.delta_from = config.heads, config.delta_from
        self.query, self.key, self.value = (nn.Linear(config.width, inner) for _ in range(3))
        self.out = nn.Linear(inner, config.width)
        if config.guided:
            self.prompt_query = nn.Linear(config.width, inner)
            side = self.key if config.delta_from == "keys" else self.value
            with torch.no_grad():                   # the two biases alone make Delta = 1
                for part in (self.prompt_query, side):
                    part.bias.fill_(config.head_width ** -0.25)

    def forward(self, x, source, hidden, guidance=None, unguided=None, weights: bool = False):
        """hidden (B, T) bool; unguided (B,) bool: the clips whose Delta is 1 all over. -> (B, Q, d), and the map when asked for."""
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()  # (B, heads, length, d_k)
        q, k, v = split(self.query(x)), split(self.key(source)), split(self.value(source))
        shut = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(hidden, -torch.inf)[:, None, None, :]
        if guidance is None and not weights:
            mixed, attention = F.scaled_dot_product_attention(q, k, v, attn_mask=shut), None
        else:
            scale = 1 / math.sqrt(q.shape[-1])
            scores = (q * scale) @ k.transpose(-1, -2)                                    # (5)
            if guidance is None:
                scores = scores + shut
            else:
                side = k if self.delta_from == "keys" else v
                delta = (split(self.prompt_query(guidance)) * scale) @ side.transpose(-1, -2)
                if unguided.any():
                    delta = delta.masked_fill(unguided[:, None, None, None], 1.0)
                scores = torch.addcmul(shut, scores, delta)                               # Hadamard, then what is hidden shut off
            attention = scores.softmax(-1)                                                # (6)
            mixed = attention @ v
        return self.out(mixed.transpose(1, 2).flatten(2)), attention if weights else None


class AlignmentLayer(nn.Module):
    """(7): a Transformer decoder layer with (conditional) attention in its attention's place."""

    def __init__(self, config: PGMFConfig):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = ConditionalAttention(config)
        self.mlp = nn.Sequential(nn.Linear(config.width, config.alignment_feed_forward), nn.GELU(),
                                 nn.Linear(config.alignment_feed_forward, config.width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, source, hidden, guidance, unguided, weights):
        mixed, attention = self.attention(self.norm_attention(x), source, hidden, guidance, unguided, weights)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm_mlp(x))), attention


class PGMF(nn.Module):
    """Teacher or student over one batch; see the paper's Figure 1."""

    def __init__(self, config: PGMFConfig):
        super().__init__()
        self.config = config
        self.embeddings = nn.ModuleDict({m: Embedding(config, m, 0 if m == "text" else config.embed_layers) for m in MODALITIES})
        self.prompt_embedding = PromptEmbedding(config) if config.guided else None
        self.alignments = nn.ModuleDict({m: nn.ModuleList([AlignmentLayer(config) for _ in range(config.alignment_layers)]) for m in SOURCES})
        self.fusion_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.fusion = encoder_layers(config, config.fusion_layers, config.fusion_heads, config.fusion_feed_forward)
        self.norm = nn.LayerNorm(config.width)
        self.score = nn.Linear(config.width, 1)

    def forward_guidance(self, batch: Batch, text: Embedded) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """S_P (4) for the slot and the words of each clip, and which clips have no guidance; (None, None) where none has any."""
        if self.prompt_embedding is None or batch.prompt is None or batch.prompt_padding.all():
            return None, None
        padding = batch.padding["text"]
        guidance = self.prompt_embedding(batch.prompt, batch.prompt_padding, 1 + (~padding).sum(1), 1 + padding.shape[1])
        return text.pick(guidance), batch.prompt_padding.all(1)

    def forward_fusion(self, aligned: list[torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        """Both aligned sequences and the fusion token through the Transformer -> H_fusion (B, d)."""
        x = torch.cat([self.fusion_token.expand(len(hidden), 1, -1), *aligned], dim=1)
        hidden = torch.cat([hidden.new_zeros(len(hidden), 1), *[hidden] * len(aligned)], dim=1)
        for number, layer in enumerate(self.fusion, start=1):
            x = layer(x, hidden, 1 if number == len(self.fusion) else None)               # of the last layer only the token is read
        return self.norm(x[:, 0])

    def align(self, batch: Batch, maps: str = "none", packed: bool = True) -> Aligned:
        """(1)-(8). maps: keep the attention of "none", the "last", or "all" layers. packed: carry each clip's visible tokens alone,
        which changes nothing but the time it takes."""
        embedded = {m: self.embeddings[m](batch.values[m], batch.hidden(m), packed) for m in MODALITIES}
        text = embedded["text"]
        guidance, unguided = self.forward_guidance(batch, text)
        aligned, kept = [], {}
        for m in SOURCES:
            x, kept[m] = text.tokens, []
            for number, layer in enumerate(self.alignments[m], start=1):
                wanted = maps == "all" or maps == "last" and number == len(self.alignments[m])
                x, attention = layer(x, embedded[m].tokens, embedded[m].hidden, guidance, unguided, wanted)   # (2), (3)
                kept[m] += [attention] if wanted else []
            aligned.append(x)
        fusion = self.forward_fusion(aligned, text.hidden)
        return Aligned(self.score(fusion)[:, 0], fusion, kept, text.hidden, {m: embedded[m].hidden for m in SOURCES})    # (8)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Scores (B,) on the data set's scale. A batch without a prompt gives the teacher's unconditioned attention softmax(W)."""
        return self.align(batch).score

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """(9), (12): the error of the score alone."""
        return {"total": (self(batch) - batch.score).abs().mean()}

    @torch.no_grad()
    def explain(self, batch: Batch) -> Alignments:
        """The score with the attention of every layer and head."""
        found = self.align(batch, maps="all", packed=False)
        shut = lambda m: (found.rows[:, 1:, None] | found.columns[m][:, None, 1:])[:, None, None]
        return Alignments(found.score, found.fusion,
                          {m: torch.stack(layers, dim=1)[..., 1:, 1:].masked_fill(shut(m), 0.0) for m, layers in found.maps.items()})


def attention_transfer(student: Aligned, teacher: Aligned) -> torch.Tensor:
    """(10): |W - W_con| in the last layer of both alignments, a mean over the heads and the visible rows and columns of each
    clip, then over clips; the two alignments add up."""
    total = 0.0
    for m in SOURCES:
        real = (~student.rows)[:, :, None] & (~student.columns[m])[:, None, :]                                # (B, Q, T)
        apart = (student.maps[m][-1] - teacher.maps[m][-1].detach()).abs().mean(1)
        total = total + ((apart * real).sum((1, 2)) / real.sum((1, 2))).mean()
    return total


def distillation(student: Aligned, teacher: Aligned | None, truth: torch.Tensor, alpha: float, beta: float) -> dict[str, torch.Tensor]:
    """(10)-(13); "total" is what to minimise. No gradient reaches the teacher, and a loss without weight is 0 and not computed: with
    alpha = 0 the maps and with both 0 the teacher may be absent."""
    regression = (student.score - truth).abs().mean()                                                         # (12)
    attention = attention_transfer(student, teacher) if alpha else regression.new_zeros(())
    fusion = (student.fusion - teacher.fusion.detach()).abs().mean() if beta else regression.new_zeros(())    # (11)
    return {"total": regression + alpha * attention + beta * fusion, "regression": regression, "attention": attention, "fusion": fusion}  # (13)

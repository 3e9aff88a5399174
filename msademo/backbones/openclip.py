"""A pair of towers out of open_clip: a CLIP-like ViT of any size, by model name and pretrained tag or local file, in float32.

Everything of the model is frozen and left out of checkpoints, but for the last blocks of both towers where they are to be tuned. Sizes
are read from the model. Words keep the positions they were trained at: prompts bring none of their own. open_clip is only
imported when such a pair is asked for; it needs the mended torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from msademo.backbones.bundled import Frozen
from msademo.backbones.prompted import Record, Tokens, Tower, attend, spread
from msademo.backbones.torchvision_trap import mend
from msademo.errors import InputError
from msademo.features.text import TextTokens, pack

PREFIX = "open_clip:"
END_OF_WORD = "</w>"


def load_clip(name: str) -> nn.Module:
    """"open_clip:MODEL:TAG_OR_FILE" -> the model in eval mode, with its tokenizer as `.tokenizer`. Raises InputError with one sentence."""
    mend()
    try:
        import open_clip
    except ImportError as error:
        raise InputError("open_clip is not installed; run `pip install open_clip_torch==3.3.0`.") from error
    model, _, source = name.removeprefix(PREFIX).partition(":")
    if model not in open_clip.list_models():
        raise InputError(f"open_clip has no model called {model!r}; write open_clip:MODEL:TAG_OR_FILE, such as open_clip:ViT-B-32:openai.")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not Path(source).is_file() and source not in tags:
        raise InputError(f"{source!r} is neither a file nor a pretrained tag of {model}; its tags are {', '.join(tags) or 'none'}.")
    try:
        clip = open_clip.create_model(model, pretrained=source, precision="fp32", device="cpu", weights_only=True)
    except Exception as error:       # hubs, disks and damaged files each raise their own
        raise InputError(f"The weights {source!r} of {model} cannot be loaded; give a local file, or a tag where the model hub can be reached.") from error
    clip.tokenizer = open_clip.get_tokenizer(model)
    return clip.eval()


def clip_block(block: nn.Module, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
    x = x + block.ls_1(attend(block.attn, block.ln_1(x), seen, record))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


class _ClipTower(Tower):
    def __init__(self, clip: nn.Module, transformer: nn.Module, tuned: int):
        super().__init__()
        self._clip = Frozen(clip)
        blocks = list(transformer.resblocks)
        if not 0 <= tuned <= len(blocks):
            raise InputError(f"This tower has {len(blocks)} blocks; {tuned} of them cannot be tuned.")
        if not isinstance(getattr(blocks[0], "attn", None), nn.MultiheadAttention):
            raise InputError("This open_clip model has blocks of another kind than CLIP's; choose a plain ViT such as ViT-B-32.")
        self.width, self.depth, self.blocks = transformer.width, len(blocks), blocks
        self.tuned = nn.ModuleList(blocks[len(blocks) - tuned:]).requires_grad_(True)

    def _apply(self, fn, recurse: bool = True):
        self._clip.module._apply(fn)
        return super()._apply(fn, recurse)

    def block(self, index: int, x: torch.Tensor, seen: torch.Tensor, record: Record | None) -> torch.Tensor:
        return clip_block(self.blocks[index], x, seen, record)


class ClipTextTower(_ClipTower):
    """E_T of CLIP: prompts stand behind the start token; pooled at the end token, which a masked text keeps."""

    place = 1

    def __init__(self, clip: nn.Module, tuned: int = 0):
        if not hasattr(clip, "token_embedding") or getattr(clip, "text_pool_type", "argmax") not in ("argmax", "eos"):
            raise InputError("This open_clip model has no CLIP text tower; choose a plain one such as ViT-B-32.")
        super().__init__(clip, clip.transformer, tuned)
        self.causal = clip.attn_mask is not None
        self.context = clip.context_length
        projection = clip.text_projection
        self.dim = clip.ln_final.normalized_shape[0] if projection is None else \
            projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]

    def tokenize(self, words: Sequence[str]) -> TextTokens:
        """Each word by itself: CLIP's tokenizer splits at white space and punctuation anyway, and so its pieces stay its own."""
        coder = self._clip.module.tokenizer
        ids, first, pieces, cut = [coder.sot_token_id], [-1], ["[SOT]"], 0
        for number, word in enumerate(words):
            codes = coder.encode(word)
            if len(ids) + len(codes) > self.context - 1:
                cut = len(words) - number
                break
            ids += codes
            first += [number] * len(codes)
            pieces += [coder.decoder[code].removesuffix(END_OF_WORD) for code in codes]
        first = np.array([*first, -1])
        return TextTokens(np.array([*ids, coder.eot_token_id]), first, first.copy(), (*pieces, "[EOT]"), len(words), cut)

    @torch.no_grad()
    def stem(self, texts: Sequence[TextTokens], missing: Sequence[np.ndarray] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings with positions of the tokens left, (B, T, width), and which places are tokens (B, T) bool."""
        clip = self._clip.module
        ids, places, there = pack(texts, missing, 0, clip.positional_embedding.device)
        there[:, 0] |= ~there.any(1)
        return clip.token_embedding(ids) + clip.positional_embedding[places], there

    def tokens(self, values: torch.Tensor, there: torch.Tensor) -> Tokens:
        last = there.sum(1, keepdim=True) - 1
        return Tokens(values, ~there, torch.zeros_like(there, dtype=values.dtype).scatter_(1, last, 1.0))

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        return self._clip.module.ln_final(x)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        projection = self._clip.module.text_projection
        return pooled if projection is None else projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection


class ClipImageTower(_ClipTower):
    """E_V of CLIP: the class token, the patches, and prompts at the end. A missing patch is not looked at; nothing else saw it."""

    def __init__(self, clip: nn.Module, tuned: int = 0):
        visual = clip.visual
        if not hasattr(visual, "class_embedding") or getattr(visual, "attn_pool", None) is not None or visual.pool_type not in ("tok", "avg"):
            raise InputError("This open_clip model has no plain ViT for pictures; choose one such as ViT-B-32.")
        super().__init__(clip, visual.transformer, tuned)
        self.grid, self.dim = tuple(visual.grid_size), self.width if visual.proj is None else visual.proj.shape[1]
        self.side = visual.image_size[0]
        shown = getattr(visual, "preprocess_cfg", {})
        self.mean, self.deviation = (np.float32(shown.get(key, standard)) for key, standard in
                                     (("mean", (0.48145466, 0.4578275, 0.40821073)), ("std", (0.26862954, 0.26130258, 0.27577711))))

    def prepare(self, rgb: np.ndarray) -> torch.Tensor:
        """Picture (H, W, 3) uint8 -> pixels (3, S, S): the middle square, as CLIP was trained, standardised."""
        left, top, right, bottom = self.box(*rgb.shape[:2])
        square = rgb[top:bottom, left:right]
        method = cv2.INTER_AREA if len(square) >= self.side else cv2.INTER_CUBIC
        square = cv2.resize(square, (self.side, self.side), interpolation=method).astype(np.float32) / 255
        return torch.from_numpy((square - self.mean) / self.deviation).permute(2, 0, 1).contiguous()

    @staticmethod
    def box(height: int, width: int) -> tuple[int, int, int, int]:
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    @torch.no_grad()
    def patches(self, pixels: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
        """Pixels (B, 3, S, S) -> patch embeddings (B, P, width). `missing` changes nothing: the patches do not overlap."""
        return self._clip.module.visual.conv1(pixels).flatten(2).transpose(1, 2)

    def tokens(self, patches: torch.Tensor, missing: torch.Tensor | None = None) -> Tokens:
        visual = self._clip.module.visual
        missing = missing if missing is not None else torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
        missing = missing & ~missing.all(1, keepdim=True)      # the caller knows that an absent picture is absent
        values = torch.cat([visual.class_embedding.expand(len(patches), 1, -1), patches], dim=1) + visual.positional_embedding
        hidden = torch.cat([missing.new_zeros(len(missing), 1), missing], dim=1)
        if visual.pool_type == "avg":
            return Tokens(values, hidden, spread(torch.cat([torch.zeros_like(hidden[:, :1]), ~missing], dim=1)))
        return Tokens(values, hidden, torch.zeros_like(hidden, dtype=values.dtype).index_fill_(1, torch.tensor(0, device=values.device), 1.0))

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        return self._clip.module.visual.ln_pre(x)

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        visual = self._clip.module.visual
        return x if visual.final_ln_after_pool else visual.ln_post(x)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        visual = self._clip.module.visual
        pooled = visual.ln_post(pooled) if visual.final_ln_after_pool else pooled
        return pooled if visual.proj is None else pooled @ visual.proj

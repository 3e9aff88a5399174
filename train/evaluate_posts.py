"""python -m train evaluate of SPRO: both paths and their fusion on kept-apart posts, whole and with words, patches or both taken away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch

from msademo.corruption import missing
from msademo.features.posts import post_words
from msademo.metrics import class_metrics
from msademo.models.spro import CLASSES, SPRO
from msademo.picture import read_picture
from msademo.registry import load_spro
from train.loop import best_device, device_of
from train.posts import Post, read_posts
from train.stems import usable

BATCH = 32
CASES = {"words": (True, False), "patches": (False, True), "both": (True, True)}       # does the rate reach the text, the image?


class PostBench:
    """The posts of a split, decoded once. Masks depend on the seed and the post's place."""

    def __init__(self, spro: SPRO, posts: Sequence[Post], seed: int):
        self.spro, self.seed = spro, seed
        self.tokens = [spro.text.tokenize(post_words(post.text)) for post in posts]
        self.pixels = torch.stack([spro.image.prepare(read_picture(post.image).rgb) for post in posts])
        self.truth = np.array([CLASSES.index(post.label) for post in posts])
        self.prototypes = spro.prototypes()
        self.frequent = CLASSES.index(max(spro.meta["class_shares"], key=spro.meta["class_shares"].get))

    @torch.no_grad()
    def image_logits(self, rate: float) -> torch.Tensor:
        """(N, 3); rows of absent pictures (every patch missing) are NaN."""
        count, device = self.spro.image.grid[0] * self.spro.image.grid[1], device_of(self.spro)
        gone = torch.from_numpy(np.stack([missing(count, rate, "vision", self.seed + i) for i in range(len(self.truth))])).to(device)
        logits = []
        for start in range(0, len(gone), BATCH):
            part = gone[start:start + BATCH]
            patches = self.spro.image.patches(self.pixels[start:start + BATCH].to(device), part)
            logits.append(self.spro.logits(self.spro.encode_image(patches, part), self.prototypes))
        return torch.cat(logits).masked_fill(gone.all(1, keepdim=True), torch.nan).float().cpu()

    @torch.no_grad()
    def text_logits(self, rate: float) -> torch.Tensor:
        """(N, 3); rows of texts without a word left are NaN."""
        gone = [t.missing(missing(t.words, rate, "text", self.seed + i)) for i, t in enumerate(self.tokens)]
        order = np.argsort([len(t) - g.sum() for t, g in zip(self.tokens, gone)], kind="stable")
        logits = torch.empty(len(order), len(CLASSES))
        for start in range(0, len(order), BATCH):
            rows = order[start:start + BATCH]
            embedded = self.spro.encode_text([self.tokens[i] for i in rows], [gone[i] for i in rows])
            logits[rows] = self.spro.logits(embedded, self.prototypes).float().cpu()
        logits[[bool(g.all()) for g in gone]] = torch.nan
        return logits

    def metrics(self, image: torch.Tensor, text: torch.Tensor) -> dict[str, dict]:
        """Of each path and the fusion, over all posts. Where a half is absent the fusion is the other path (as in SPRO.predict); a
        path that is absent, or a post of which nothing is left, counts as the class most frequent in training."""
        fused = self.spro.fuse(image, text)
        fused = torch.where(fused.isnan(), torch.where(image.isnan(), text, image), fused)
        report = {}
        for name, logits in (("image", image), ("text", text), ("fusion", fused)):
            predicted = torch.where(logits.isnan().any(1), self.frequent, logits.argmax(1)).numpy()
            report[name] = class_metrics(predicted, self.truth, CLASSES)
        return report


def evaluate_posts(path: str | Path, data: str | Path, split: str, rates: Sequence[float], seed: int, text: str | Path | None = None,
                   say: Callable[[str], None] = print) -> dict:
    """All figures of one SPRO checkpoint on a split; the folder may hold only that split's rows. text: as in load_spro."""
    spro = load_spro(path, text).to(best_device())
    posts = usable(read_posts(data, split, say), say)
    bench, started = PostBench(spro, posts, seed), time.monotonic()
    text, image, wanted = {}, {}, sorted({0.0, *rates})
    for number, rate in enumerate(wanted, start=1):
        text[rate], image[rate] = bench.text_logits(rate), bench.image_logits(rate)
        whole = bench.metrics(image[rate], text[rate])["fusion"]["accuracy"]
        say(f"evaluate: rate {rate} of words and patches, fusion accuracy {whole:.4f} ({number}/{len(wanted)}, "
            f"{(time.monotonic() - started) / 60:.1f} min)")
    by_case = {name: [{"rate": rate, **bench.metrics(image[rate if of_image else 0.0], text[rate if of_text else 0.0])} for rate in rates]
               for name, (of_text, of_image) in CASES.items()}
    counts = np.bincount(bench.truth, minlength=len(CLASSES))
    return {
        "checkpoint": Path(path).name,
        "protocol": f"MVSA by the label rule of MultiSentiNet (4511 pairs of MVSA-Single, not the 2592 on which both judgements agree), {split} split, "
                    "one mask draw a rate; words are taken away before the text encoder and patches before the picture network; a path that is absent "
                    "counts as the most frequent class; epoch and fusion weight were chosen on valid; shares in [0, 1]",
        "seed": seed, "n": len(posts), "image_weight": spro.config.image_weight, "majority": float(counts.max() / counts.sum()),
        **bench.metrics(image[0.0], text[0.0]), "rates": by_case,
    }

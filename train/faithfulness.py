"""python -m train faithfulness: do SPRO's overlays mean something?

For posts of a split, the most relevant patches of a picture are hidden - blanked in its pixels, as the demo does - and, for comparison,
as many at random and the least relevant. If relevance points at what the prediction rests on, the predicted class's probability
falls most in the first case.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.models.spro import SPRO, stage_texts
from msademo.picture import read_picture
from msademo.registry import load_spro
from msademo.relevance import class_direction, combine, hide_top, image_relevance
from train.posts import Post, read_captions, read_posts
from train.stems import usable

RANDOM_DRAWS = 5


def drops(spro: SPRO, post: Post, captions: tuple[str, ...], share: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """By way of hiding, how far the probability of the predicted class falls: (2,), of the image path and of the fusion."""
    pixels = spro.image.prepare(read_picture(post.image).rgb)[None]
    count = spro.image.grid[0] * spro.image.grid[1]
    none = torch.zeros(count, dtype=torch.bool)
    with torch.no_grad():
        patches = spro.image.patches(pixels)
        words = spro.text.tokenize(post_words(post.text))
        text = spro.encode_text([words]) if words.words else None
        whole = spro.predict(spro.encode_image(patches), text)
        predicted = int(whole.image.argmax())
        directions = torch.cat([class_direction(spro, predicted)[None], *([spro.encode_captions(captions)] if captions else [])])
    maps = image_relevance(spro, patches, none[None], directions)
    ways = {"class": hide_top(maps[0], share, none), "overlay": hide_top(combine(maps), share, none), "least": hide_top(-combine(maps), share, none)}
    for draw in range(RANDOM_DRAWS):
        ways[f"random {draw}"] = hide_top(torch.from_numpy(rng.random(count)), share, none)
    gone = torch.stack(list(ways.values()))
    with torch.no_grad():
        image = spro.encode_image(spro.image.patches(pixels.expand(len(gone), -1, -1, -1), gone), gone)
        left = spro.predict(image, None if text is None else text.expand(len(gone), -1))
    final = int(whole.fusion.argmax())
    return {way: np.array([float(whole.image[0, predicted] - left.image[row, predicted]), float(whole.fusion[0, final] - left.fusion[row, final])])
            for row, way in enumerate(ways)}


def faithfulness(spro: SPRO, posts: list[Post], captions: dict[str, tuple[str, ...]], share: float, seed: int) -> dict:
    """Means over posts of `drops`, random hiding averaged over its draws, and how often hiding the relevant beats it."""
    rows = []
    for number, post in enumerate(posts):
        found = drops(spro, post, stage_texts(spro.config, captions[post.key]) if captions else (), share, np.random.default_rng([seed, number]))
        chance = np.mean([found.pop(f"random {draw}") for draw in range(RANDOM_DRAWS)], axis=0)
        rows.append({**found, "random": chance})
    report = {"n": len(rows), "share": share, "seed": seed}
    for column, path in enumerate(("image", "fusion")):
        drop = {way: np.array([row[way][column] for row in rows]) for way in rows[0]}
        gain = {way: drop[way] - drop["random"] for way in ("class", "overlay")}
        report[path] = {"drop": {way: float(values.mean()) for way, values in drop.items()},
                        "beats_random": {way: float((values > 0).mean()) for way, values in gain.items()},
                        "standard_error_of_difference": {way: float(values.std(ddof=1) / len(rows) ** 0.5) for way, values in gain.items()}}
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"), help="the text encoder it was trained on")
    parser.add_argument("--captions", type=Path, default=Path("checkpoints/captions.jsonl.gz"), help="of the split's posts")
    parser.add_argument("--posts", type=int, default=200, help="how many, evenly spread over the split")
    parser.add_argument("--share", type=float, default=0.2, help="share of the patches that are hidden")
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--json", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    if not 0 < args.share < 1 or args.posts < 2:
        raise InputError("--share must lie between 0 and 1, and --posts be 2 or more.")
    spro = load_spro(args.checkpoint, args.text)
    posts = usable(read_posts(args.data, args.split, print))
    posts = [posts[i] for i in np.linspace(0, len(posts) - 1, min(args.posts, len(posts))).round().astype(int)]
    captions = {} if spro.config.captions == "none" else read_captions(args.captions)
    absent = [post.key for post in posts if captions and post.key not in captions]
    if absent:
        raise InputError(f"{args.captions} has no captions for {len(absent)} of the posts, the first is {absent[0]}; "
                         "write them with `python -m train captions`.")
    report = faithfulness(spro, posts, captions, args.share, args.seed)
    write_atomically(args.json, json.dumps(report, indent=1).encode())
    for path in ("image", "fusion"):
        told = ", ".join(f"{way} {100 * value:+.2f}" for way, value in report[path]["drop"].items())
        print(f"{path}, {report['n']} posts, {100 * args.share:.0f} % of the patches hidden: the predicted class's probability falls by (points) {told}")

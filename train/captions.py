"""python -m train captions: write Tone, Content and Emotion of every post's picture, and keep them in one file.

What was written or answered is kept by the picture's content: a run that is killed and started again does nothing twice. A picture that
cannot be read, or for which a language model gives no answer, is counted with its reason and left out; the others go on.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import inspect
import io
import json
import os
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Callable, Sequence

from msademo.backbones.expression import load_expression
from msademo.checkpoint import file_hash, write_atomically
from msademo.errors import InputError
from msademo.features import picture as measuring
from msademo.guidance import offline_posts
from msademo.guidance.cache import cached
from msademo.guidance.chat import ChatSettings, has_key
from msademo.guidance.posts import CAPTION_SOURCES, Captions, ask_captions, offline_captions
from msademo.models.spro import STAGES
from msademo.picture import read_picture
from train.data import SPLITS
from train.guidance import HOPELESS, PacedChat
from train.posts import Post, read_posts

CACHE = Path(".cache/captions")


def offline_writer(face: Path, cache: Path) -> Callable[[bytes], Captions]:
    """Picture bytes -> captions. A changed writer, expression network or measurement never meets its old cache."""
    network = load_expression(face)
    code = "".join(inspect.getsource(module) for module in (measuring, offline_posts))
    mark = hashlib.sha256((code + measuring.NAMES_FILE.read_text("utf-8") + file_hash(face)).encode()).hexdigest()

    def write(data: bytes) -> Captions:
        make = lambda: offline_captions(measuring.look(read_picture(data).rgb, network)).to_dict()
        return Captions(**cached(cache, {"writer": mark, "picture": hashlib.sha256(data).hexdigest()}, make))

    return write


def openai_writer(settings: ChatSettings, rate: float, cache: Path) -> Callable[[bytes], Captions]:
    """Picture bytes -> captions; GuidanceError when there is no usable answer."""
    chat = PacedChat(settings, rate)
    return lambda data: ask_captions(read_picture(data).rgb, chat, cache)


def caption_all(posts: Sequence[Post], write: Callable[[bytes], Captions], workers: int, say=print) -> tuple[dict[str, tuple[Captions, str]], Counter]:
    """Captions and the hash of the picture by post, and how many failed for which reason. InputError when nothing works any more."""
    done: dict[str, tuple[Captions, str]] = {}
    failures: Counter = Counter()
    streak, started = 0, time.monotonic()
    said = started

    def one(post: Post) -> tuple[Captions, str]:
        data = post.image.read_bytes()
        return write(data), hashlib.sha256(data).hexdigest()[:16]

    with ThreadPoolExecutor(workers) as pool:
        waiting, pending = list(reversed(posts)), {}
        while (waiting or pending) and streak < HOPELESS:
            while waiting and len(pending) < 2 * workers:
                post = waiting.pop()
                pending[pool.submit(one, post)] = post.key
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                streak = _collect(future, pending.pop(future), done, failures, streak)
            count = len(done) + failures.total()
            if time.monotonic() - said > 10 or count == len(posts):
                said = time.monotonic()
                say(f"captions: {count}/{len(posts)} posts, {failures.total()} failed, ETA {(said - started) / count * (len(posts) - count) / 60:.1f} min")
    if streak >= HOPELESS:
        raise InputError(f"The last {streak} posts all failed, so the run was stopped ({failures.most_common(1)[0][0]}); what is done is kept, "
                         "and the same command goes on from there.")
    return done, failures


def _collect(future: Future, key: str, done: dict, failures: Counter, streak: int) -> int:
    """Take one result in; returns how many failed in a row."""
    error = future.exception()
    if error is None:
        done[key] = future.result()
        return 0
    failures[str(error) if isinstance(error, InputError) else type(error).__name__] += 1
    return streak + 1


def write_file(path: Path, posts: Sequence[Post], captions: dict[str, tuple[Captions, str]]) -> None:
    """One line a post, in the posts' order; compressed when the name ends in .gz, the same bytes for the same captions."""
    lines = []
    for post in posts:
        if post.key in captions:
            made, picture = captions[post.key]
            lines.append(json.dumps({"id": post.key, **dict(zip(STAGES, made.texts())), "source": made.source, "picture": picture}, ensure_ascii=False))
    data, buffer = ("\n".join(lines) + "\n").encode("utf-8", "replace"), io.BytesIO()
    if path.suffix == ".gz":
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
            file.write(data)
        data = buffer.getvalue()
    write_atomically(path, data)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with posts.csv and images/, or CLMLF's or MVSA's layout")
    parser.add_argument("--source", choices=CAPTION_SOURCES, required=True)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/captions.jsonl.gz"))
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["train", "valid"])
    parser.add_argument("--limit", type=int, help="only so many posts of each split")
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"), help="the expression network")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where what was written or answered is kept")
    parser.add_argument("--model", help="the language model's name; else MSADEMO_OPENAI_MODEL")
    parser.add_argument("--rate", type=float, default=300.0, help="most questions a minute")
    parser.add_argument("--workers", type=int, help="pictures looked at, or questions open, at once")


def run(args: argparse.Namespace, say=partial(print, flush=True)) -> None:
    if (args.limit is not None and args.limit < 1) or (args.workers is not None and args.workers < 1) or not args.rate > 0:
        raise InputError("--limit, --workers and --rate must be at least 1.")
    if args.source == "openai":
        if not has_key():
            raise InputError("No key for a language model is set; set OPENAI_API_KEY (any value will do for a local server) or use --source offline.")
        write, workers = openai_writer(ChatSettings.from_environment(**({"model": args.model} if args.model else {})), args.rate, args.cache), args.workers or 8
    else:
        write, workers = offline_writer(args.face, args.cache), args.workers or os.cpu_count() or 1
    posts = [post for split in args.split for post in read_posts(args.data, split, say)[:args.limit]]
    captions, failures = caption_all(posts, write, workers, say)
    for reason, count in failures.most_common():
        say(f"captions: {count} left out - {reason}")
    if not captions:
        raise InputError("No post has captions, so none were written; see the reasons above.")
    write_file(args.out, posts, captions)
    different = len({made.texts() for made, _ in captions.values()})
    say(f"wrote {args.out}: captions of {len(captions)} posts ({different} of them different), {args.out.stat().st_size / 1e6:.2f} MB")

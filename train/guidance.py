"""python -m train guidance: write the prompts of the composed corpus, and keep them in one file.

The clips are `--compositions` fixed compositions of every training transcript and those that `evaluate` measures on. Offline prompts cost
less than looking them up, so they are simply written. What a language model answers is kept by content hash: a run that is killed and
started again asks nothing twice and ends with the same file. A composed clip has faces but no video, so three crops are sent.
"""

from __future__ import annotations

import argparse
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

import cv2
import numpy as np

from msademo.errors import InputError
from msademo.features.bundle import Features, Track
from msademo.features.text import load_text_encoder
from msademo.guidance.chat import Chat, ChatSettings, has_key
from msademo.guidance.clips import CLIP_SOURCES, ask_clip, three_frames
from msademo.guidance.offline import write_prompt
from msademo.guidance.prompt import Prompt
from train.cluster import Cluster, add_ray_argument
from train.compose import Composer
from train.data import SPLITS, read_transcripts, training_transcripts
from train.evaluate import COMPOSITIONS as BENCH_COMPOSITIONS
from train.evaluate import build_bench
from train.jobs import CACHE
from train.prepare import face_variant, load_pool
from train.prompts import COMPOSITIONS, PromptBook, clip_key, fixed_clip

__all__ = ["PromptBook", "clip_key", "fixed_clip", "add_arguments", "run"]

SHOWN_SIDE = 192            # pixels; a 48-pixel crop is enlarged, for models see little in so small a picture
HOPELESS = 25               # failures in a row after which nothing more is asked: the key, the model or the network is at fault


@dataclass(frozen=True)
class Wanted:
    """A clip that needs a prompt. frames() gives the pictures that are sent."""

    words: tuple[str, ...]
    features: Features
    frames: Callable[[], list[np.ndarray]]


class Album:
    """The faces of a composed clip, found again by their names, as they were seen: shifted, mirrored and lit as their variant was."""

    def __init__(self, archive: Path):
        self.archive = zipfile.ZipFile(archive)

    def frames(self, features: Features) -> list[np.ndarray]:
        """Three (SHOWN_SIDE, SHOWN_SIDE, 3) uint8 pictures over the clip."""
        crops = (self.crop(face) for face in three_frames(features.vision.origin))
        return [cv2.cvtColor(cv2.resize(crop, (SHOWN_SIDE, SHOWN_SIDE), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB) for crop in crops]

    def crop(self, face: str) -> np.ndarray:
        """A face as a track's origin names it -> the (48, 48) uint8 crop."""
        name, variant = face.rsplit("#", 1)
        return face_variant(cv2.imdecode(np.frombuffer(self.archive.read(name), np.uint8), cv2.IMREAD_GRAYSCALE), name, int(variant))


class PacedChat(Chat):
    """A Chat that starts at most `rate` questions a minute; what comes from the cache is not slowed down."""

    def __init__(self, settings: ChatSettings, rate: float):
        super().__init__(settings)
        self._gap, self._next, self._turn = 60 / rate, 0.0, threading.Lock()

    def ask(self, instruction: str, text: str, images: Sequence[np.ndarray] = ()) -> str:
        with self._turn:
            start = self._next = max(time.monotonic(), self._next + self._gap)
        time.sleep(max(0.0, start - time.monotonic()))
        return super().ask(instruction, text, images)


class Progress:
    """A line every ten seconds, and at the end. price: money a million tokens read and written, or None."""

    def __init__(self, total: int, chat: Chat | None, price: tuple[float, float] | None, say):
        self.total, self.chat, self.price, self.say = total, chat, price, say
        self.done, self.failures = 0, Counter()
        self.started = self.said = 0.0

    def step(self, reason: str | None = None) -> None:
        if not self.done:                   # features are extracted before the first clip, which tells nothing about the others
            self.started = self.said = time.monotonic()
        self.done += 1
        if reason is not None:
            self.failures[reason] += 1
        if time.monotonic() - self.said > 10 or self.done == self.total:
            self.said = time.monotonic()
            left = (self.said - self.started) / self.done * (self.total - self.done) / 60
            self.say(f"guidance: {self.done}/{self.total} clips, {self.failures.total()} failed{self.cost()}, ETA {left:.1f} min")

    def cost(self) -> str:
        if self.chat is None:
            return ""
        used = self.chat.used
        told = f", {used['requests']} answers with {used['read']} tokens read and {used['written']} written"
        return told if self.price is None else f"{told}, costing {(used['read'] * self.price[0] + used['written'] * self.price[1]) / 1e6:.4f}"


def wanted_clips(args: argparse.Namespace, split: str, encoder, cluster: Cluster | None = None) -> tuple[int, Iterator[Wanted]]:
    """How many clips of a split need a prompt, and the clips one after the other."""
    if split == "train":
        rows = training_transcripts(args.data)[:args.limit]
        total = args.compositions * len(rows)
    else:
        rows = [row for row in read_transcripts(args.data, "mosi", split) if row.words][:args.limit]
        total = BENCH_COMPOSITIONS * len(rows)

    def clips() -> Iterator[Wanted]:
        pool = load_pool(args.data, split, args.face, args.cache, cluster)
        album = Album(args.data / "faces" / "fer2013.zip") if args.source == "openai" else None
        if split == "train":
            composer, tokens = Composer(pool), [encoder.tokenize(row.words) for row in rows]
            made = ((row.words, fixed_clip(composer, t, row.score, args.seed, k, i)) for k in range(args.compositions)
                    for i, (row, t) in enumerate(zip(rows, tokens)))
        else:
            bench = build_bench(argparse.Namespace(data=args.data, corpus="mosi", split=split, face=args.face, cache=args.cache, seed=args.seed), encoder)
            made = ((row.words, clip) for clips in bench.clips for row, clip in zip(rows, clips))
        for words, clip in made:
            yield Wanted(words, clip, (lambda clip=clip: album.frames(clip)) if album else list)

    return total, clips()


def offline(told: tuple[str, tuple[str, ...], Track, Track]) -> tuple[str, Prompt]:
    """A clip's key, words, voice and face -> its key and its prompt."""
    key, *clip = told
    return key, write_prompt(*clip)


def write_all(clips: Iterator[Wanted], book: PromptBook, progress: Progress, cluster: Cluster | None = None) -> None:
    told = ((clip_key(clip.features), clip.words, clip.features.audio, clip.features.vision) for clip in clips)
    for key, prompt in map(offline, told) if cluster is None else (found for _, found in cluster.map(offline, told)):
        book.add(key, prompt)
        progress.step()


def ask_all(clips: Iterator[Wanted], book: PromptBook, progress: Progress, chat: Chat, cache: Path, workers: int) -> None:
    """Ask for every clip; a failure is counted with its reason and the next clip goes on. InputError when nothing works any more."""
    pending: dict[Future, str] = {}
    streak = 0

    def ask(clip: Wanted):
        return ask_clip(clip.words, clip.features.audio, clip.features.vision, clip.frames(), chat, cache)

    def collect(least: int) -> None:
        """Take in what is done, until fewer than `least` questions are open."""
        nonlocal streak
        while len(pending) >= least and pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                key, error = pending.pop(future), future.exception()
                streak = 0 if error is None else streak + 1
                if error is None:
                    book.add(key, future.result())
                progress.step(None if error is None else str(error) if isinstance(error, InputError) else type(error).__name__)

    with ThreadPoolExecutor(workers) as pool:
        for clip in clips:
            if streak >= HOPELESS:
                break
            pending[pool.submit(ask, clip)] = clip_key(clip.features)
            collect(4 * workers)            # clips are composed as they are needed, for all of them would not fit in memory
        collect(1)
    if streak >= HOPELESS:
        raise InputError(f"The last {streak} questions all failed, so no more were asked ({progress.failures.most_common(1)[0][0]}); "
                         "the answers so far are kept, and the same command goes on from there.")


def guide(args: argparse.Namespace, say=print) -> PromptBook:
    """All prompts of the wanted splits in one book, written to args.out. What failed is reported and left out."""
    book = PromptBook(args.source, f"composed corpus: {args.compositions} compositions of the MOSI and MOSEI training transcripts and the clips that "
                                   f"evaluate measures on ({', '.join(args.split)}); seed {args.seed}; face network {args.face.name}")
    encoder = load_text_encoder(args.text)
    cluster = Cluster(args.ray) if args.ray else None
    parts = [wanted_clips(args, split, encoder, cluster) for split in args.split]
    settings = ChatSettings.from_environment(**{name: value for name, value in (("model", args.model), ("timeout_s", args.timeout)) if value})
    chat = PacedChat(settings, args.rate) if args.source == "openai" else None
    progress = Progress(sum(total for total, _ in parts), chat, args.price, say)
    for _, clips in parts:
        if chat is None:
            write_all(clips, book, progress, cluster)
        else:
            ask_all(clips, book, progress, chat, args.answers, args.workers)
    for reason, count in progress.failures.most_common():
        say(f"guidance: {count} without a prompt - {reason}")
    if not len(book):
        raise InputError("No clip has a prompt, so none were written; see the reasons above.")
    book.write(args.out)
    say(f"wrote {args.out}: {len(book)} prompts, {args.out.stat().st_size / 1e6:.2f} MB"
        + (f"; {progress.failures.total()} clips have none, the same command asks for them again" if progress.failures else ""))
    return book


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with mosi/, mosei/, voices/ and faces/")
    parser.add_argument("--source", choices=CLIP_SOURCES, required=True)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/prompts.jsonl.gz"))
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["train", "valid"])
    parser.add_argument("--compositions", type=int, default=COMPOSITIONS, help="fixed compositions of every training transcript")
    parser.add_argument("--limit", type=int, help="only so many transcripts of each split")
    parser.add_argument("--seed", type=int, default=1111, help="fixes the compositions; the one that is trained and evaluated with")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"))
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where extracted features are kept")
    parser.add_argument("--answers", type=Path, default=Path(".cache/guidance"), help="where a language model's answers are kept")
    parser.add_argument("--model", help="the language model's name; else MSADEMO_OPENAI_MODEL")
    parser.add_argument("--timeout", type=float, help="seconds for one question with all its attempts")
    parser.add_argument("--rate", type=float, default=300.0, help="most questions a minute")
    parser.add_argument("--workers", type=int, default=8, help="questions open at once")
    add_ray_argument(parser)
    parser.add_argument("--price", type=float, nargs=2, metavar=("READ", "WRITTEN"), help="money a million tokens, for the cost shown")


def run(args: argparse.Namespace) -> None:
    if args.compositions < 1 or args.workers < 1 or not args.rate > 0 or (args.limit is not None and args.limit < 1):
        raise InputError("--compositions, --limit, --workers and --rate must be at least 1.")
    if args.source == "openai" and args.ray:
        raise InputError("--ray is for --source offline: a language model is waited for, not computed, and one machine keeps to its --rate; leave --ray out.")
    if args.source == "openai" and not has_key():
        raise InputError("No key for a language model is set; set OPENAI_API_KEY (any value will do for a local server) or use --source offline.")
    guide(args)

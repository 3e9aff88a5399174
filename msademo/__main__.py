"""python -m msademo clip FILE ... or post PICTURE --text "...": analyse a clip or a post from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.options import MODELS
from msademo.transcript import read_text_file


def parse_missing(pairs: list[str]) -> dict[str, float]:
    """["text=0.5", "audio=1"] -> {"text": 0.5, "audio": 1.0}."""
    ratios = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            ratios[name] = float(value)
        except ValueError:
            raise InputError(f"--missing {pair!r} cannot be read; write a modality and a ratio, such as text=0.5.") from None
    return ratios


def describe(result) -> str:
    """A few lines for people: every model's score, what the teacher was told, what was missing, the notes."""
    lines = [f"{MODELS[name]}: {p.score:+.2f} {p.label} (complete clip {p.complete:+.2f}, change {p.change:+.2f}; scale {result.scale[0]:g} to {result.scale[1]:g})"
             for name, p in result.predictions.items()]
    for name, view in result.modalities.items():
        state = f"{int(view.missing.sum())} of {len(view.missing)} missing" if view.present else "absent from the clip"
        lines.append(f"  {name}: {state}")
    if result.guidance is not None:
        source = result.guidance.source
        told = {"none": "nothing", "typed": "a typed prompt"}.get(source, f"{source} prompt, written from {result.guidance.written_from}")
        lines.append(f"  the teacher was told: {told}")
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def describe_post(result) -> str:
    """The same of a post: the answer of both paths together and of each, what was missing, the captions, the notes."""
    fusion, percent = result.paths["fusion"], "{:.0%}".format
    lines = [f"{result.label} {percent(result.probability)} (complete post {fusion.complete_label} {percent(fusion.complete.max())}, "
             f"change of that {100 * result.change:+.0f} points)"]
    for name, half in (("image", "picture"), ("text", "words")):
        path = result.paths[name]
        told = "absent" if path.now is None else ", ".join(f"{c} {percent(p)}" for c, p in zip(result.classes, path.now))
        lines.append(f"  {half} alone: {told}")
    for name, gone in (("words", result.word_missing), ("patches", result.patch_missing)):
        lines.append(f"  {name}: {int(gone.sum())} of {len(gone)} missing")
    if result.captions is not None:
        lines += [f"  {stage} ({result.captions.source}): {text}" for stage, text in zip(("tone", "content", "emotion"), result.captions.texts())]
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def add_post(commands) -> None:
    post = commands.add_parser("post", help="analyse a picture with its text")
    post.add_argument("image", type=Path, nargs="?", help="the picture; leave it out for a text alone")
    post.add_argument("--text", help="the post's words; leave it out for a picture alone")
    post.add_argument("--missing", nargs="*", default=[], metavar="HALF=RATIO", help="what to take away: text, image")
    post.add_argument("--seed", type=int, default=0)
    post.add_argument("--captions", default="offline", help="where the stage captions come from: offline or openai")
    post.add_argument("--json", action="store_true", help="print the whole result as JSON")


def run_post(args) -> int:
    from msademo.analyzer import Analyzer
    result = Analyzer().post(args.image, args.text, parse_missing(args.missing), args.seed, args.captions)
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=1) if args.json else describe_post(result))
    return 0


def add_clip(commands) -> None:
    clip = commands.add_parser("clip", help="analyse a video or sound file")
    clip.add_argument("file", type=Path)
    words = clip.add_mutually_exclusive_group()
    words.add_argument("--transcript", help="the words said; without it the speech is recognised")
    words.add_argument("--subtitles", help="an .srt or .vtt file")
    clip.add_argument("--missing", nargs="*", default=[], metavar="MODALITY=RATIO", help=f"what to take away: {', '.join(MODALITIES)}")
    clip.add_argument("--kind", default="random", help="random, span, or signal-level kinds joined with + (noise+blur)")
    clip.add_argument("--seed", type=int, default=0)
    clip.add_argument("--models", help=f"{', '.join(MODELS)}; several with commas, all without it")
    told = clip.add_mutually_exclusive_group()
    told.add_argument("--guidance", help="what the teacher is told: offline (written from the complete clip), openai, none, or the text itself")
    told.add_argument("--prompt-file", help="a text file with what the teacher is told, in the form of '### Visual Cues ###' and so on")
    clip.add_argument("--json", action="store_true", help="print the whole result as JSON")
    clip.add_argument("--maps", action="store_true", help="with --json: the attention maps too")


def run_clip(args) -> int:
    if args.maps and not args.json:
        raise InputError("--maps belongs to --json; give both.")
    missing = parse_missing(args.missing)
    typed = None if args.prompt_file is None else read_text_file(args.prompt_file, "prompt file", "a text file")
    from msademo.analyzer import Analyzer
    from msademo.guidance.given import sections_of
    guidance = args.guidance if typed is None else sections_of(typed)
    result = Analyzer().clip(args.file, args.transcript, missing, args.kind, args.seed, args.models, guidance, subtitles=args.subtitles)
    print(json.dumps(result.to_dict(args.maps), ensure_ascii=False, indent=1) if args.json else describe(result))
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m msademo", description="Sentiment of clips and posts when parts are missing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_clip(commands)
    add_post(commands)
    args = parser.parse_args(argv)
    try:
        return {"clip": run_clip, "post": run_post}[args.command](args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

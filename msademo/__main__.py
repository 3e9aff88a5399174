"""python -m msademo clip FILE ...: analyse a clip from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from msademo.corruption import MODALITIES
from msademo.errors import InputError


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
    """A few lines for people: the score, what was missing, the notes."""
    prediction = result.predictions["pglh"]
    lines = [f"{prediction.score:+.2f} {prediction.label} (complete clip {prediction.complete:+.2f}, change {prediction.change:+.2f}; scale -3 to 3)"]
    for name, view in result.modalities.items():
        state = f"{int(view.missing.sum())} of {len(view.missing)} missing" if view.present else "absent from the clip"
        lines.append(f"  {name}: {state}")
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m msademo", description="Sentiment of clips when parts are missing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    clip = commands.add_parser("clip", help="analyse a video or sound file")
    clip.add_argument("file", type=Path)
    words = clip.add_mutually_exclusive_group()
    words.add_argument("--transcript", help="the words said; without it the speech is recognised")
    words.add_argument("--subtitles", help="an .srt or .vtt file")
    clip.add_argument("--missing", nargs="*", default=[], metavar="MODALITY=RATIO", help=f"what to take away: {', '.join(MODALITIES)}")
    clip.add_argument("--kind", default="random", help="random, span, or signal-level kinds joined with + (noise+blur)")
    clip.add_argument("--seed", type=int, default=0)
    clip.add_argument("--json", action="store_true", help="print the whole result as JSON")
    args = parser.parse_args(argv)
    try:
        from msademo.analyzer import Analyzer
        result = Analyzer().clip(args.file, args.transcript, parse_missing(args.missing), args.kind, args.seed, subtitles=args.subtitles)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=1) if args.json else describe(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

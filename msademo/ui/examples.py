"""The clips and posts to click: what examples/examples.json and posts.json list and is really there."""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def examples(folder: Path = EXAMPLES, index: str = "examples.json") -> list[dict]:
    """Dicts with file (a path), title, transcript (of a post: text) and note; empty where nothing was made yet."""
    listing = folder / index
    if not listing.is_file():
        return []
    listed = json.loads(listing.read_text("utf-8"))
    return [{**item, "file": str(folder / item["file"])} for item in listed if (folder / item["file"]).is_file()]

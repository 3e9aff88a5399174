"""The clips to click: what examples/examples.json lists and is really there."""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def examples(folder: Path = EXAMPLES) -> list[dict]:
    """Dicts with file (a path), title, transcript and note; empty where nothing was made yet."""
    index = folder / "examples.json"
    if not index.is_file():
        return []
    listed = json.loads(index.read_text("utf-8"))
    return [{**item, "file": str(folder / item["file"])} for item in listed if (folder / item["file"]).is_file()]

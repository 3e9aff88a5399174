"""Make the example posts: four pictures free of rights, as scikit-image ships them, one drawn here, and words written for them.

    python examples/make_posts.py

Needs, beside what the demo needs, scikit-image, whose wheel holds the pictures (`pip install scikit-image`). Nothing is downloaded.
The same versions give the same files, byte for byte. Writes the pictures and posts.json beside this file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
SIDE = 480                  # pixels of the long side
QUALITY = 85


@dataclass(frozen=True)
class Example:
    """One post. picture: a file of scikit-image's data, "" for the one drawn here; crop: left, top, width, height in its pixels, or None."""

    name: str
    title: str
    text: str
    note: str
    picture: str
    crop: tuple[int, int, int, int] | None = None


EXAMPLES = (
    Example("team", "Glad: words and smile agree", "So proud and happy to be part of this amazing team! Thank you all, what a wonderful day.",
            "Words and face are both glad. Hide patches and see how much of the relevance lies on the face.", "astronaut.png", (60, 0, 360, 400)),
    Example("cat", "Glad: a cat", "My sweet little cat makes every Sunday lovely.",
            "A pleasant picture without a face that the model could read: what does it go by?", "chelsea.png"),
    Example("rain", "Sad: dark words, dark night", "Another cold and lonely night. I am so tired of this, everything goes wrong and nobody cares.",
            "Words and picture are both gloomy. Take the words away: does the dark street alone still tell?", ""),
    Example("coffee", "Conflict: bitter words, pretty cup", "Terrible place. The coffee was cold, the waiter was rude, and I hate that we paid for it.",
            "The picture is inviting and the words are not: compare the two paths, and see which one the answer follows.", "coffee.png"),
    Example("coins", "Neutral: a plain note", "Coins from the collection, second room, case 12.",
            "Neither words nor picture tell a feeling; this is the class that the data knows least of.", "coins.png"),
)


def found(example: Example) -> np.ndarray:
    """The picture as scikit-image has it, cropped: (H, W, 3) uint8 BGR."""
    spec = find_spec("skimage")
    if spec is None:
        sys.exit("The pictures come with scikit-image, which is not installed; run `pip install scikit-image` and try again.")
    picture = cv2.imread(str(Path(spec.origin).parent / "data" / example.picture), cv2.IMREAD_COLOR)
    if picture is None:
        sys.exit(f"This scikit-image has no {example.picture}; run `pip install scikit-image==0.26.0` and try again.")
    if example.crop:
        left, top, width, height = example.crop
        picture = picture[top:top + height, left:left + width]
    scale = SIDE / max(picture.shape[:2])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def rainy_street(seed: int = 7) -> np.ndarray:
    """A wet street at night between dark houses, one lamp, rain: (360, 480, 3) uint8 BGR, drawn from nothing but random numbers."""
    rng, (height, width) = np.random.default_rng(seed), (360, SIDE)
    horizon, vanish = 215, (250, 205)
    picture = np.zeros((height, width, 3), np.float32)
    picture[:horizon] = np.linspace(26, 46, horizon)[:, None, None] * np.array([1.15, 1.0, 0.9])
    picture[horizon:] = np.linspace(30, 14, height - horizon)[:, None, None] * np.array([1.1, 1.0, 0.95])
    for side in (-1, 1):                                        # houses, smaller towards the vanishing point
        for depth in np.linspace(0.95, 0.15, 6):
            x = int(vanish[0] + side * depth * 260)
            top, bottom, wide = int(vanish[1] - 210 * depth * rng.uniform(0.75, 1.0)), int(vanish[1] + 60 * depth), int(75 * depth) + 12
            left, right = sorted((x, x + side * wide * 2))
            shade = 10 + 16 * (1 - depth)
            cv2.rectangle(picture, (left, top), (right, bottom), (shade * 1.1, shade, shade * 0.95), -1)
            for row in range(top + 12, bottom - 10, max(8, int(34 * depth))):
                for column in range(left + 6, right - 8, max(7, int(26 * depth))):
                    lit = rng.random() < 0.06
                    colour = (60, 120, 165) if lit else (shade + 8, shade + 7, shade + 6)
                    cv2.rectangle(picture, (column, row), (column + max(3, int(11 * depth)), row + max(4, int(16 * depth))), colour, -1)
    road = np.array([[0, height], [width, height], [vanish[0] + 22, horizon - 4], [vanish[0] - 22, horizon - 4]])
    cv2.fillPoly(picture, [road], (24, 21, 20))
    lamp = (132, 120)
    cv2.line(picture, lamp, (132, 300), (12, 12, 12), 4)
    y, x = np.mgrid[:height, :width]
    glow = np.exp(-np.hypot(x - lamp[0], y - lamp[1]) / 34)[..., None] + 0.45 * np.exp(-np.hypot((x - lamp[0]) * 2.6, (y - 322) * 0.55) / 30)[..., None]
    picture += 150 * glow * np.array([0.45, 0.75, 0.95])
    walker(picture)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8)
    drops = np.zeros((height, width), np.float32)
    for _ in range(300):
        at, length = rng.uniform((0, 0), (width, height)), rng.uniform(8, 22)
        cv2.line(drops, tuple(int(v) for v in at), (int(at[0] - length * 0.25), int(at[1] + length)), float(rng.uniform(6, 22)), 1, cv2.LINE_AA)
    picture += cv2.GaussianBlur(drops, (0, 0), 0.6)[..., None] + rng.normal(0, 2.5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def walker(picture: np.ndarray) -> None:
    """Draws somebody from behind, walking away under an umbrella."""
    coat, umbrella, edge = (13, 12, 12), (58, 46, 66), (98, 84, 104)
    cv2.fillPoly(picture, [np.array([(262, 236), (298, 236), (308, 312), (252, 312)])], coat)
    for left in (262, 284):
        cv2.rectangle(picture, (left, 310), (left + 13, 342), (9, 9, 9), -1)
    cv2.circle(picture, (280, 222), 14, coat, -1)
    cv2.line(picture, (293, 160), (293, 262), edge, 3)
    cv2.ellipse(picture, (293, 212), (72, 58), 0, 180, 360, umbrella, -1)
    for centre in (-54, -18, 18, 54):                           # the scalloped rim
        cv2.ellipse(picture, (293 + centre, 213), (18, 9), 0, 180, 360, (20, 16, 16), -1)
    for x in (-72, -36, 0, 36, 72):                             # the ribs
        cv2.line(picture, (293, 154), (293 + x, 212), edge, 1, cv2.LINE_AA)


def listing() -> list[dict[str, str]]:
    """What posts.json holds: one entry a post, in the order they are shown."""
    return [{"file": f"{example.name}.jpg", "title": example.title, "text": example.text, "note": example.note} for example in EXAMPLES]


def main() -> None:
    for example in EXAMPLES:
        path = HERE / f"{example.name}.jpg"
        cv2.imwrite(str(path), found(example) if example.picture else rainy_street(), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    (HERE / "posts.json").write_text(json.dumps(listing(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What can be measured in a picture without a language model: colour and light, things, faces and their expressions.

Bounds called "thirds" and the like are quantiles of 300 pictures drawn from MVSA-Single's training split (no labels were looked at).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from msademo.backbones import efficientnet
from msademo.backbones.expression import EXPRESSIONS, ExpressionNet
from msademo.features.vision import align, bounds, crop_tokens, models, workers
from msademo.picture import shrink

NAMES_FILE = Path(efficientnet.__file__).with_name("imagenet.txt")
SIDE = 96                   # pixels at which colour and light are measured
DETAIL_SIDE = 256           # and fine detail
NAMED = 0.10                # least share of a colour that is named
MOST_COLOURS = 3
MOST_THINGS = 5


@dataclass(frozen=True)
class Light:
    """Means over the picture. lightness, contrast: CIELAB's L* (0-100) and its deviation; chroma: CIELAB's, 0 = grey; warmth in [-1, 1]:
    from blue to orange, weighted by chroma; detail: mean grey-level step to the next pixel at DETAIL_SIDE; value, saturation: HSV's, in
    [0, 1]; colours: (name, share), largest first; lit: the part of the picture that is clearly lighter than the rest, "" for none."""

    lightness: float
    contrast: float
    chroma: float
    warmth: float
    detail: float
    value: float
    saturation: float
    colours: tuple[tuple[str, float], ...]
    lit: str

    @property
    def pleasure(self) -> float:
        """Valdez and Mehrabian (1994), "Effects of color on emotions": how pleasant such light is, from value and saturation."""
        return 0.69 * self.value + 0.22 * self.saturation

    @property
    def arousal(self) -> float:
        """And how exciting."""
        return -0.31 * self.value + 0.60 * self.saturation


@dataclass(frozen=True)
class Face:
    """box: x1 y1 x2 y2 in pixels of the picture; expression: (7,) probabilities in the order of EXPRESSIONS."""

    box: tuple[float, float, float, float]
    expression: tuple[float, ...]

    @property
    def looks(self) -> str:
        return EXPRESSIONS[int(np.argmax(self.expression))]


@dataclass(frozen=True)
class Seen:
    """size: width and height. things: (ImageNet name, probability), most probable first; groups: the same by kind ("dog", "car")."""

    size: tuple[int, int]
    light: Light
    things: tuple[tuple[str, float], ...]
    groups: tuple[tuple[str, float], ...]
    faces: tuple[Face, ...]


@lru_cache(maxsize=1)
def imagenet_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the 1000 classes in their order, and the kind each belongs to ("" for none)."""
    rows = [line.partition("\t") for line in NAMES_FILE.read_text("utf-8").splitlines()]
    return tuple(name for name, _, _ in rows), tuple(kind for _, _, kind in rows)


def kind_of(name: str) -> str:
    """The kind of an ImageNet class by its name; "" for none."""
    return dict(zip(*imagenet_names())).get(name, "")


def look(rgb: np.ndarray, expression: ExpressionNet) -> Seen:
    """rgb (H, W, 3) uint8 -> all of it. The same picture gives the same answer."""
    net = efficientnet.load_efficientnet()
    with torch.no_grad():
        likely = net.imagenet(net.patches(net.prepare(rgb)[None]))[0].numpy()
    names, kinds = imagenet_names()
    best = np.argsort(-likely, kind="stable")[:MOST_THINGS]
    mass: dict[str, float] = {}
    for kind, p in zip(kinds, likely.tolist()):
        if kind:
            mass[kind] = mass.get(kind, 0.0) + p
    groups = sorted(mass.items(), key=lambda item: -item[1])[:MOST_THINGS]
    return Seen(rgb.shape[1::-1], measure_light(rgb), tuple((names[i], float(likely[i])) for i in best), tuple(groups), find_faces(rgb, expression))


def find_faces(rgb: np.ndarray, expression: ExpressionNet) -> tuple[Face, ...]:
    """The picture's faces, largest first, at most four (features/vision.py)."""
    found = workers().submit(lambda: models().faces(rgb)).result()      # the threads that have the face models already
    if not found:
        return ()
    chances = crop_tokens(np.stack([align(rgb, mesh) for mesh, _ in found]), expression)[:, -len(EXPRESSIONS):]
    return tuple(Face(tuple(map(float, bounds(mesh))), tuple(map(float, row))) for (mesh, _), row in zip(found, chances))


def measure_light(rgb: np.ndarray) -> Light:
    small = shrink(rgb, SIDE).astype(np.float32) / 255
    lab, hsv = cv2.cvtColor(small, cv2.COLOR_RGB2LAB), cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    lightness, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    warm = float((chroma * np.cos(np.radians(hue - 60))).mean() / max(float(chroma.mean()), 1.0))
    grey = cv2.cvtColor(shrink(rgb, DETAIL_SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    steps = np.hypot(np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1])
    return Light(float(lightness.mean()), float(lightness.std()), float(chroma.mean()), warm, float(steps.mean()) if steps.size else 0.0,
                 float(hsv[..., 2].mean()), float(hsv[..., 1].mean()), _colours(lightness, chroma, hue), _lit(lightness))


# Hue angles in CIELAB where one colour name ends and the next begins; dark and pale shades of some have names of their own.
HUES = ((20, "pink"), (50, "red"), (80, "orange"), (112, "yellow"), (165, "green"), (215, "teal"), (308, "blue"), (335, "purple"), (361, "pink"))


def colour_names(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Names of colours given in CIELAB (L* 0-100, chroma, hue in degrees); arrays of one shape."""
    names = np.array([name for _, name in HUES])[np.searchsorted([end for end, _ in HUES], hue, side="right").clip(0, len(HUES) - 1)]
    dark, pale = lightness < 50, chroma < 30
    rules = [((names == "pink") & (lightness < 45), np.where(hue < 180, "red", "purple")),
             ((names == "red") & (lightness > 70), "pink"), ((names == "red") & dark & (chroma < 45), "brown"),
             ((names == "orange") & dark, "brown"), ((names == "orange") & pale, "beige"),
             ((names == "yellow") & (dark | pale), np.where(dark, "olive", "beige"))]
    for where, name in rules:
        names = np.where(where, name, names)
    grey = np.select([lightness > 90, lightness > 65, lightness > 35], ["white", "light grey", "grey"], "dark grey")
    names = np.where(chroma < 10, grey, names)
    return np.where((lightness < 12) | ((lightness < 20) & (chroma < 15)), "black", names)


def _colours(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> tuple[tuple[str, float], ...]:
    found, counts = np.unique(colour_names(lightness, chroma, hue), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = [(str(found[i]), float(counts[i] / lightness.size)) for i in order]
    return tuple(pair for n, pair in enumerate(shares) if n == 0 or (n < MOST_COLOURS and pair[1] >= NAMED))


LIT = 15.0          # L* by which one part must exceed the rest; 183 of the 300 pictures have such a part


def _lit(lightness: np.ndarray) -> str:
    """Where the picture is clearly lighter than elsewhere."""
    height, width = lightness.shape
    if min(height, width) < 3:
        return ""
    third = lambda size: (max(1, size // 3), size - max(1, size // 3))
    (top, bottom), (left, right) = third(height), third(width)
    middle = np.zeros(lightness.shape, bool)
    middle[top:bottom, left:right] = True
    contrasts = {"at the top": lightness[:top].mean() - lightness[bottom:].mean(), "at the bottom": lightness[bottom:].mean() - lightness[:top].mean(),
                 "on the left": lightness[:, :left].mean() - lightness[:, right:].mean(), "on the right": lightness[:, right:].mean() - lightness[:, :left].mean(),
                 "in the middle": lightness[middle].mean() - lightness[~middle].mean(), "at the edges": lightness[~middle].mean() - lightness[middle].mean()}
    place = max(contrasts, key=contrasts.get)
    return place if contrasts[place] >= LIT else ""

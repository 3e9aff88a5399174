"""Stage captions without a language model: Tone, Content and Emotion of a picture, in plain sentences about what was measured in it.

Tone says its colours and its light; Content, the things and faces recognised; Emotion, the feeling that faces, light and things
suggest. Deterministic. Only the picture is looked at: neither the post's words nor, ever, a label.
"""

from __future__ import annotations

import re
from typing import Sequence

import numpy as np

from msademo.backbones.expression import EXPRESSIONS
from msademo.features.picture import Face, Light, Seen, kind_of
from msademo.guidance.offline import LOOKS, SIGN

# Quantiles (15, 33, 67, 85 %) of the pictures of features/picture.py.
LIGHTNESS = (31.0, 42.0, 57.0, 70.0)
CONTRAST = (16.6, 20.7, 25.1, 28.6)
CHROMA = (5.3, 8.7, 17.6, 24.6)
DETAIL = (7.6, 10.6, 16.5, 20.5)
PLEASURE = (0.315, 0.384, 0.492, 0.573)
AROUSAL = (-0.116, -0.050, 0.057, 0.124)
WARMTH = (-0.1, 0.4)        # of pictures with any colour to speak of

LIKELY, POSSIBLE, FAINT = 0.50, 0.20, 0.08      # probability of an ImageNet name that is stated, called possible, and called a likeness
KIND, SURE_KIND = 0.40, 0.65                    # and of a whole kind of things ("some dog"), where no single name is likely
CLEAR, FAIR = 0.7, 0.45     # probability of an expression that is clear, and one that can be told
FELT = (0.15, 0.45)         # mean of pleasant less unpleasant expressions: some, strong

PLEASANT = {"dog", "cat", "bird", "butterfly", "rabbit", "flower", "landscape", "food", "drink", "fruit or vegetable", "toy or party decoration"}
UNPLEASANT = {"weapon", "snake", "spider or scorpion", "insect"}
UNPLEASANT_THINGS = {"prison", "shipwreck", "gas mask", "oxygen mask", "stretcher", "ambulance", "syringe", "mask", "chain", "crutch", "neck brace", "ski mask"}

# By how pleasant (-2 to 2) and how exciting (0 calm to 2 tense).
MOODS = {
    2: ("contentment and peace", "happiness and warmth", "joy and excitement"),
    1: ("calm and ease", "a friendly, pleasant mood", "lively cheerfulness"),
    0: ("a quiet, matter-of-fact mood", "neither a pleasant nor an unpleasant mood", "restlessness without a clear direction"),
    -1: ("a gloomy, thoughtful mood", "unease", "tension"),
    -2: ("sadness and loneliness", "distress", "alarm or anger"),
}
PLURAL = re.compile(r"(?:jeans|sunglasses|trunks|pyjamas|binoculars|maracas|parallel bars|running shoe|clogs)$")
COLOURED = ("colourless", "muted", "moderately coloured", "colourful", "vivid")
STIRRED = ("angry", "fear", "happy", "surprise")            # expressions that go with excitement
MASS = {"red wine", "broccoli", "cauliflower", "cabbage", "corn", "mashed potato", "guacamole", "hay", "wool", "velvet", "toilet paper", "carbonara",
        "chocolate sauce", "dough", "espresso", "eggnog", "consomme", "chain mail", "lotion", "face powder", "hair spray", "sunscreen", "rapeseed", "hot pot"}


def level(value: float, bounds: tuple[float, ...]) -> int:
    """How many of the bounds the value reaches."""
    return sum(value >= bound for bound in bounds)


def listed(parts: Sequence[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def a(name: str) -> str:
    """The name with its article, where it takes one."""
    if PLURAL.search(name) or name in MASS:
        return name
    vowel = name[0].lower() in "aeiou" and not name.startswith(("uni", "one-")) or name.startswith("hour")
    return f"{'an' if vowel else 'a'} {name}"


def tone(light: Light) -> str:
    """Colour and light: "A bright, warm, vivid picture, strong contrast, many details, mostly orange with some brown, lightest at the top." """
    brightness = ("A very dark", "A dark", "An evenly lit", "A bright", "A very bright")[level(light.lightness, LIGHTNESS)]
    warmth = "" if light.chroma < CHROMA[0] else (" cool,", "", " warm,")[level(light.warmth, WARMTH)]
    contrast = ("very soft", "soft", "medium", "strong", "very strong")[level(light.contrast, CONTRAST)]
    detail = ("hardly any", "few", "some", "many", "very many")[level(light.detail, DETAIL)]
    (first, share), others = light.colours[0], [name for name, _ in light.colours[1:]]
    most = "nearly all " if share >= 0.85 else "mostly " if share >= 0.5 else ""
    some = f" with some {listed(others)}" if others else ""
    where = f", lightest {light.lit}" if light.lit else ""
    return (f"{brightness},{warmth} {COLOURED[level(light.chroma, CHROMA)]} picture, {contrast} contrast, {detail} details, "
            f"{most}{first}{some}{where}.")


def content(seen: Seen) -> str:
    """The faces, then what ImageNet's names fit, each as sure as it is."""
    people = ("Nobody's face is seen", "One face is seen", "Two faces are seen", "Three faces are seen", "Several faces are seen")[len(seen.faces)]
    if seen.faces:
        x1, y1, x2, y2 = seen.faces[0].box
        width, height = seen.size
        share = max(0.0, x2 - x1) * max(0.0, y2 - y1) / (width * height)
        size = "small" if share < 0.02 else "large" if share > 0.12 else "medium-sized"
        middle = (x1 + x2) / 2 / width
        people += f", {'the largest ' if len(seen.faces) > 1 else ''}{size} and {('on the left', 'in the middle', 'on the right')[level(middle, (0.36, 0.64))]}"
    named = [(name, p) for name, p in seen.things if p >= POSSIBLE]
    likely = [a(name) for name, p in named if p >= LIKELY]
    possible = [a(name) for name, p in named if p < LIKELY]
    if likely:
        said = f"The picture shows {listed(likely)}" + (f", perhaps with {listed(possible)}" if possible else "")
    elif seen.groups and seen.groups[0][1] >= KIND:
        kind, p = seen.groups[0]
        best = next((f", most like {a(name)}" for name, _ in seen.things if kind_of(name) == kind), "")
        said = f"The picture {'shows' if p >= SURE_KIND else 'perhaps shows'} some {kind}{best}"
    elif possible:
        said = f"The picture perhaps shows {listed(possible)}"
    elif seen.things[0][1] >= FAINT:
        said = f"Nothing is recognised for sure; it is most like {a(seen.things[0][0])}"
    else:
        said = f"Nothing is recognised; there is a faint likeness to {a(seen.things[0][0])}"
    return f"{said}. {people}."


def feeling(face: Face) -> float:
    """Pleasant less unpleasant expressions, in [-1, 1]."""
    return float(np.dot(face.expression, [SIGN[name] for name in EXPRESSIONS]))


def faces_told(faces: Sequence[Face]) -> str:
    """How the faces look, as a phrase: what most of them agree in, and how clearly."""
    mean = np.mean([face.expression for face in faces], 0)
    best, several = int(mean.argmax()), len(faces) > 1
    if mean[best] < FAIR:
        mood = float(np.mean([feeling(face) for face in faces]))
        lean = "" if abs(mood) < FELT[0] else f", rather {'pleasant' if mood > 0 else 'unpleasant'}"
        return ("faces that are hard to read" if several else "a face that is hard to read") + lean
    looks = ("clearly " if mean[best] >= CLEAR else "") + LOOKS[EXPRESSIONS[best]]
    return f"{looks} faces" if several else f"{a(looks)} face"


def thing_mood(seen: Seen) -> tuple[float, str]:
    """How pleasant the things are, in [-1, 1], and the one that says so most ("" for none)."""
    scores = {kind: p * ((kind in PLEASANT) - (kind in UNPLEASANT)) for kind, p in seen.groups}
    scores |= {name: -p for name, p in seen.things if name in UNPLEASANT_THINGS}
    best = max(scores, key=lambda name: abs(scores[name]), default="")
    total = float(np.clip(sum(scores.values()), -1, 1))
    return total, best if best and abs(scores[best]) >= KIND else ""


def emotion(seen: Seen) -> str:
    """The feeling that light, faces and things suggest together, after what suggests it."""
    light, excited = level(seen.light.pleasure, PLEASURE) - 2, level(seen.light.arousal, AROUSAL) - 2       # -2 ... 2
    things, thing = thing_mood(seen)
    mood = float(np.mean([feeling(face) for face in seen.faces])) if seen.faces else 0.0
    stirred = float(np.mean([sum(face.expression[EXPRESSIONS.index(name)] for name in STIRRED) for face in seen.faces])) if seen.faces else 0.5
    total = np.sign(mood) * level(abs(mood), FELT) + (0.4 if seen.faces else 0.6) * light + 1.2 * things     # faces tell most
    pleasant = int(np.clip(np.round(total), -2, 2))
    suggested = MOODS[pleasant][level(excited + 3 * (stirred - 0.5), (-0.75, 0.75))]
    reasons = [f"{('dark', 'dim', 'even', 'clear', 'bright')[level(seen.light.lightness, LIGHTNESS)]} light",
               f"{('hardly any', 'muted', 'moderate', 'rich', 'vivid')[level(seen.light.chroma, CHROMA)]} colours"]
    reasons += [faces_told(seen.faces)] if seen.faces else []
    reasons += [f"the {thing}"] if thing and things * pleasant >= 0 else []
    against = f", against the {thing}" if thing and things * pleasant < 0 else ""
    sentence = f"{listed(reasons)} suggest {suggested}{against}."
    return sentence[0].upper() + sentence[1:] + ("" if seen.faces else " No face tells a feeling.")


def write_captions(seen: Seen) -> tuple[str, str, str]:
    """Tone, Content and Emotion of a picture."""
    return tone(seen.light), content(seen), emotion(seen)

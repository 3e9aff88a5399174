"""Files that people never meant to send: a small corpus of every kind the demo reads, and seeded ways to spoil it.

A case is a function of (seed, number) alone, so a number is enough to have it again.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import numpy as np
from PIL import Image

from msademo.backbones.expression import ExpressionConfig, ExpressionNet, save_expression
from msademo.backbones.voice import VoiceConfig, VoiceNet, save_voice
from msademo.checkpoint import KEY
from msademo.models.pglh import PGLHConfig
from msademo.models.pgmf import PGMFConfig
from msademo.ui.examples import EXAMPLES
from tests.mediafiles import CODECS, m4a_with_cover, with_cover, write_float_wav, write_media
from tests.study_support import zipped
from tests.synthetic import untrained

KINDS = ("media", "picture", "set", "subtitles", "checkpoint")
SHARES = (0.4, 0.25, 0.15, 0.08, 0.12)              # of the cases
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
ODD = (None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -1e308, 1e308, float("nan"), float("inf"), 0.5, "", " ", "0", "nan", "\0", "a\nb", "\ud83d", "𝔘𝔫𝔦",
       "ﷺ", "../../etc/passwd", "<script>alert(1)</script>", "%s%n", "x" * 5000, [], [[]], {}, {"": None}, [None], [0.5], {"path": "/etc/passwd"}, {"_type": "gradio.FileData"})
TAG = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")       # boxes of an mp4, chunks of a RIFF or a PNG
TABLE = "id,file,text,label,split\n1,a.mp4,what a day,1.5,train\n2,b.wav,oh no,-2,test\n3,,words alone,0,test\n"
POSTS = "id;text;label\n1;a lovely view;positive\n2;so sad;negative\n"
SRT = "1\n00:00:00,100 --> 00:00:01,000\n<i>What</i> a day\n\n2\n00:00:01,200 --> 00:00:02,000\nit was\n"
VTT = "WEBVTT\n\nNOTE nothing\n\nfirst\n00:00.000 --> 00:01.000 align:start\n<v Ann>Hello there\n\n00:01.000 --> 00:02.500\n{\\an8}again\n"


@dataclass(frozen=True)
class Case:
    """A spoilt file. kind: one of KINDS; name: what it was made of; suffix: what it claims to be; data: its bytes."""

    number: int
    kind: str
    name: str
    suffix: str
    data: bytes


def corpus() -> dict[str, dict[str, bytes]]:
    """Kind -> file name -> bytes, of good files."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        same = {"fflags": "+bitexact"}              # no dates and no random names, so that a number means the same bytes another day
        unhurried = {".webm": {"deadline": "good"}}  # in a hurry its encoder makes other bytes on a busy machine
        media = {f"short{suffix}": write_media(place / f"short{suffix}", 0.6, size=(64, 48), rate=10, options=same, video_options=unhurried.get(suffix)) for suffix in CODECS}
        media["turned.mp4"] = write_media(place / "turned.mp4", 0.4, size=(64, 48), rate=10, rotation=90, options=same)
        media["fragments.mp4"] = write_media(place / "fragments.mp4", 0.6, size=(64, 48), rate=10, options=same | {"movflags": "frag_keyframe+empty_moov"})
        media["float.wav"] = write_float_wav(place / "float.wav", np.linspace(-1, 1, 4000), channels=3)
        media["cover.mp3"] = with_cover(write_media(place / "cover.mp3", 0.4, options=same))
        media["cover.m4a"] = m4a_with_cover(place / "cover.m4a", media["short.mp3"])
        files = {name: Path(path).read_bytes() for name, path in media.items()} | {"happy.mp4": (EXAMPLES / "happy.mp4").read_bytes()}
        sets = {"clips.csv": TABLE.encode(), "posts.csv": POSTS.replace("id;", "key;").encode("utf-16"),
                "clips.zip": zipped({"labels.csv": TABLE.encode(), "a.mp4": files["short.mp4"], "b.wav": files["float.wav"]}),
                "posts.zip": zipped({"set/posts.csv": POSTS.encode(), "set/images/1.jpg": pictures()["plain.jpg"]}, zipfile.ZIP_STORED)}
        return {"media": files, "picture": pictures(), "set": sets, "subtitles": {"cues.srt": SRT.encode(), "cues.vtt": VTT.encode("utf-16")},
                "checkpoint": checkpoints(place)}


def pictures() -> dict[str, bytes]:
    """Small pictures of every format and of the colour modes that people have."""
    with Image.open(EXAMPLES / "cat.jpg") as file:
        image = file.convert("RGB").resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    wanted = {"plain.jpg": (image, "JPEG", {"exif": exif}), "progressive.jpg": (image, "JPEG", {"progressive": True}), "print.jpg": (image.convert("CMYK"), "JPEG", {}),
              "plain.png": (image, "PNG", {}), "alpha.png": (image.convert("RGBA"), "PNG", {}), "palette.png": (image.convert("P"), "PNG", {"transparency": 3}),
              "deep.png": (image.convert("I;16"), "PNG", {}), "moving.png": (image, "PNG", frames), "lossy.webp": (image, "WEBP", {}),
              "lossless.webp": (image, "WEBP", {"lossless": True}), "moving.webp": (image, "WEBP", frames), "plain.gif": (image, "GIF", {}),
              "moving.gif": (image, "GIF", frames), "plain.bmp": (image, "BMP", {}), "palette.bmp": (image.convert("P"), "BMP", {}),
              "raw.tiff": (image, "TIFF", {}), "lzw.tiff": (image, "TIFF", {"compression": "tiff_lzw"}), "jpeg.tiff": (image, "TIFF", {"compression": "jpeg"}),
              "float.tiff": (image.convert("F"), "TIFF", {}), "plain.avif": (image, "AVIF", {})}
    found = {}
    for name, (picture, kind, options) in wanted.items():
        out = io.BytesIO()
        picture.save(out, kind, **options)
        found[name] = out.getvalue()
    return found


def checkpoints(folder: Path) -> dict[str, bytes]:
    """Whole, small checkpoints of four methods; the encoders beside them are files of which only the hashes matter."""
    for part in ("text", "face", "voice"):
        (folder / f"{part}.safetensors").write_bytes(part.encode())
    dims, small = {"text": 4, "audio": 3, "vision": 2}, {"width": 8, "feed_forward": 8}
    untrained(folder / "pglh.safetensors", "pglh", PGLHConfig(dims=dims, heads=2, pcm2_prompts=2, ubpf_prompts=2, **small))
    untrained(folder / "pgmf-teacher.safetensors", "pgmf-teacher", PGMFConfig(
        dims=dims, heads=2, head_width=4, alignment_feed_forward=8, fusion_feed_forward=8, alignment_layers=1, fusion_layers=1, fusion_heads=2, prompt_layers=1, prompt_tokens=2, **small))
    save_expression(folder / "expression.safetensors", ExpressionNet(ExpressionConfig(widths=(4, 4), blocks=(1, 1), embedding=4)))
    save_voice(folder / "hearing.safetensors", VoiceNet(VoiceConfig(width=4, attention_heads=1, folds=2, rank=2, hidden=4)), unheard=[["a"], ["b"]])
    whole = [*sorted(folder.glob("*-*.safetensors")), *(folder / f"{name}.safetensors" for name in ("pglh", "expression", "hearing"))]
    return {path.name: path.read_bytes() for path in whole}


def drawn(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def case(seed: int, number: int, files: Mapping[str, Mapping[str, bytes]]) -> Case:
    """The spoilt file of this number. files: as `corpus` gives them."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    name = drawn(rng, sorted(files[kind]))
    data, suffix = files[kind][name], Path(name).suffix
    if suffix == ".zip" and rng.random() < 0.4:             # a sound zip around a spoilt table
        table = spoilt(rng, TABLE.encode(), [POSTS.encode()])
        return Case(number, kind, name, suffix, zipped({"labels.csv": table, "a.mp4": files["media"]["short.mp4"]}))
    if kind == "checkpoint" and rng.random() < 0.6:         # a sound file that says strange things of itself
        return Case(number, kind, name, suffix, with_strange_header(rng, data))
    if kind == "media" and rng.random() < 0.2:              # named as another kind
        suffix = Path(drawn(rng, sorted(files[kind]))).suffix
    others = [files[kind][other] for other in sorted(files[kind])] + [b"PK\5\6" + bytes(18), files["media"]["short.mp4"]]
    for _ in range(int(rng.integers(1, 4))):
        data = spoilt(rng, data, others)
    return Case(number, kind, name, suffix, data)


def spoilt(rng: np.random.Generator, data: bytes, others: list[bytes]) -> bytes:
    """One way of spoiling bytes, drawn; `others` are files to splice with."""
    data = bytearray(data)
    size = len(data)
    near = lambda: int(rng.integers(max(1, min(size, 600) if rng.random() < 0.6 else size)))         # headers are at the beginning
    a, b = sorted((near(), near()))
    way = int(rng.integers(9))
    if way == 0 or size < 8:                                # bits flipped
        for _ in range(int(rng.integers(1, 33))):
            if data:
                data[near() % len(data)] ^= 1 << int(rng.integers(8))
    elif way == 1:                                          # cut off
        del data[int(size * rng.random()):]
    elif way == 2:                                          # the head of one on the body of another
        other = drawn(rng, others)
        data = data[:a + 1] + other[min(len(other), b):]
    elif way in (3, 4):                                     # a length, a count or a size that is not true
        at = near()
        tags = [match.start() for match in TAG.finditer(bytes(data[:8192]))]
        if tags and way == 3:
            at = drawn(rng, tags) + (-4 if rng.random() < 0.5 else 4 * int(rng.integers(1, 8)))
        at, order = min(max(0, at), size - 4), drawn(rng, "<>")
        width, value = (4, "I") if rng.random() < 0.7 else (2, "H")
        data[at:at + width] = struct.pack(order + value, drawn(rng, EXTREMES) & (2 ** (8 * width) - 1))
    elif way == 5:                                          # something twice
        data[b:b] = data[a:b] * int(rng.integers(1, 5))
    elif way == 6:                                          # something gone
        del data[a:b]
    elif way == 7:                                          # something foreign
        data[a:a] = rng.bytes(int(rng.integers(1, 200)))
    else:                                                   # something blank
        data[a:b] = bytes(b - a)
    return bytes(data)


def strange(rng: np.random.Generator, value):
    """A JSON value with one thing in it changed to an odd one, given away, or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = drawn(rng, sorted(value))
        if rng.random() < 0.2:
            return {other: inner for other, inner in value.items() if other != key}
        return {**value, key: strange(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = int(rng.integers(len(value)))
        return [*value[:at], strange(rng, value[at]), *value[at + 1:]]
    odd = drawn(rng, ODD)
    return [value, odd] if rng.random() < 0.1 else nested(odd) if rng.random() < 0.05 else odd


def nested(value, depth: int = 200):
    for _ in range(depth):
        value = [value]
    return value


def with_strange_header(rng: np.random.Generator, data: bytes) -> bytes:
    """A safetensors file with its header changed, in what it says of itself or of its tensors, and rebuilt."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    if rng.random() < 0.7:
        document = json.loads(header["__metadata__"][KEY])
        part = drawn(rng, ("config", "config", "statistics", None))
        document = strange(rng, document) if part not in document else {**document, part: strange(rng, document[part])}
        header["__metadata__"] = {KEY: json.dumps(document) if rng.random() < 0.97 else "[" * 100_000}
    else:
        header = strange(rng, header)
    packed = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(packed)) + packed + data[8 + length:]

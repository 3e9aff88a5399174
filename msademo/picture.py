"""Picture file -> (H, W, 3) uint8 RGB, upright and of a handy size; what was changed on the way is said in notes."""

from __future__ import annotations

import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from msademo.errors import InputError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
PHOTOS = ("JPEG", "MPO")        # MPO is a phone's JPEG with a second picture behind the first
CHOOSE = "choose a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file"
MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 8192 * 8192        # from the header, before anything is decoded
MAX_SIDE = 1024                 # pixels kept; the models look at far fewer
SMALL = 32                      # pixels a side; below it there is little to see
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, AttributeError, RuntimeError)       # what Pillow's decoders raise, AVIF's the last
SIXTEEN = ("I", "I;16", "I;16B", "I;16L", "I;16N")

# Pillow warns about large pictures on stderr; ours is a lower bound and comes with a sentence.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
Image.init()                    # it knows only five kinds until asked for all


@dataclass(frozen=True)
class Picture:
    """rgb: (H, W, 3) uint8, upright, long side at most MAX_SIDE. size: width and height of the file, upright. notes: sentences
    for the user about what was read differently from how it was stored."""

    rgb: np.ndarray
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def read_picture(source: str | os.PathLike | bytes, pixels: int = MAX_PIXELS) -> Picture:
    """A local file or its bytes, of at most so many pixels. InputError, one sentence, for what is no picture, too large, or damaged beyond use.

    It decodes in this process: what a stranger gives belongs into apart.py's.
    """
    data = source if isinstance(source, bytes) else _bytes(source)
    if not data:
        raise InputError("The picture file is empty (0 bytes); save or upload it again.")
    notes: list[str] = []
    image = _open(data)
    size = image.size
    _check_size(*size, pixels)
    try:
        moving = image.format not in ("MPO", "TIFF") and bool(getattr(image, "is_animated", False))
    except (OSError, SyntaxError, ValueError, EOFError):
        moving = False                      # cut off after its first frame, which is all that is wanted
    if moving:
        image = _open(data)                 # looking for a second frame moves the file on
        notes.append("The picture is animated; only its first frame is used.")
    if image.format in PHOTOS:
        image.draft("RGB" if image.mode != "CMYK" else None, (2 * MAX_SIDE, 2 * MAX_SIDE))      # a large JPEG need not be decoded in full
    image = _decode(image, data, notes)
    rgb = _to_rgb(_upright(image, notes), notes)
    if rgb.shape[1::-1] != image.size:
        size = size[::-1]
    if min(rgb.shape[:2]) < SMALL:
        notes.append(f"The picture is only {size[0]} x {size[1]} pixels, so there is little to see in it.")
    return Picture(shrink(rgb, MAX_SIDE), size, tuple(notes))


def shrink(rgb: np.ndarray, side: int) -> np.ndarray:
    """The picture with its long side at most `side`; no side becomes 0."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    return cv2.resize(rgb, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def _bytes(path: str | os.PathLike) -> bytes:
    name = os.fspath(path)
    file = Path(name) if isinstance(name, str) and "\0" not in name else None
    if file is None or not file.is_file():
        raise InputError("The picture file does not exist; choose a file on this computer.")
    if file.stat().st_size > MAX_BYTES:
        raise InputError(f"The picture file has more than {MAX_BYTES >> 20} MB; save it smaller and try again.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError("The picture file cannot be read; check its permissions and try again.") from error


def _open(data: bytes) -> Image.Image:
    """The header of the picture; nothing is decoded yet."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        size = re.search(r"\((\d+) pixels\)", str(error))
        raise InputError(f"The picture has {int(size[1]) / 1e6:.0f} million pixels, which is too large; scale it down and try again." if size else
                         "The picture is too large; scale it down and try again.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        raise InputError(_no_picture(data)) from error


def _no_picture(data: bytes) -> str:
    """What a file that is no picture looks like; people rename files, and web sites answer with pages."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return f"The file is an SVG drawing, not a photo, whatever it is named; export it as PNG or {CHOOSE}."
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return f"The file is a web page, not a picture, whatever it is named; {CHOOSE}."
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "The file is an HEIC photo, which cannot be read here; save it as JPEG and try again."
    return f"The file cannot be read as a picture: it is damaged or of another kind; {CHOOSE}."


def _check_size(width: int, height: int, pixels: int) -> None:
    if width * height > pixels:
        raise InputError(f"The picture is {width} x {height} pixels, which is too large; scale it down to at most {_square(pixels)} and try again.")


def _square(pixels: int) -> str:
    side = int(pixels ** 0.5)
    return f"{side} x {side}"


def _decode(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """Decode it, as far as it goes: pictures on the web are often cut off."""
    try:
        image.load()
        return image
    except DAMAGED:
        pass
    try:
        if image.format in PHOTOS:             # the end marker that is missing makes the decoder hand over what it has
            size, image = image.size, Image.open(io.BytesIO(data + b"\xff\xd9"), formats=("JPEG",))
            image.draft(image.mode, size)
            image.load()
        else:
            image.tile = []                             # what has been decoded so far is the picture
            image.load()
        blank = len(set(map(tuple, np.asarray(image.convert("RGB").resize((8, 8))).reshape(-1, 3).tolist()))) == 1
    except DAMAGED as error:
        raise InputError("The picture is damaged and nothing of it can be read; save or upload it again.") from error
    if blank:
        raise InputError("The picture is cut off before anything can be seen; save or upload it again.")
    notes.append("The picture file is cut off or damaged; it is used as far as it could be read.")
    return image


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, OverflowError, ZeroDivisionError):
        return image                                    # nonsense in the camera's own data
    if turned is None or image.getexif().get(0x0112, 1) in (0, 1):
        return image
    notes.append("The picture was turned upright, as the camera noted.")
    return turned


def _to_rgb(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Any colour mode -> (H, W, 3) uint8."""
    if image.mode in SIXTEEN or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 255.0 if values.max(initial=0) <= 255 else max(65535.0, values.max())
        notes.append("The picture has more than 8 bits a colour; it is used with 8.")
        return np.repeat(np.clip(values * 255 / top, 0, 255).round().astype(np.uint8)[..., None], 3, 2)
    if image.mode == "CMYK":
        notes.append("The picture is in printing colours (CMYK); on a screen they look a little different.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            notes.append("The picture is transparent in places; white is put behind it.")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))

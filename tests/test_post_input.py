"""Pictures and texts as people really bring them: each is read as it should be or refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from msademo.errors import InputError
from msademo.picture import MAX_SIDE, read_picture, shrink
from msademo.post import MAX_WORDS, load_post, replace_text

HEIGHT, WIDTH = 120, 200


def scene() -> np.ndarray:
    """(H, W, 3): red grows to the right, green downwards, so that every corner differs."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.dstack([255 * x / (WIDTH - 1), 255 * y / (HEIGHT - 1), np.full((HEIGHT, WIDTH), 60)]).astype(np.uint8)


def coded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing: decoding it would fail, so a refusal for its size came from the header."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"no picture")


def one_sentence(error) -> str:
    text = str(error.value)
    assert text[0].isupper() and text.endswith(".") and "\n" not in text and "Traceback" not in text and text.count(". ") == 0
    return text


def near(a: np.ndarray, b: np.ndarray, within: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(float) - b.astype(float)).mean()) <= within


@pytest.mark.parametrize("kind,options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95}), ("AVIF", {"quality": 95})])
def test_every_kind_gives_the_same_picture(kind, options):
    picture = read_picture(coded(Image.fromarray(scene()), kind, **options))
    assert near(picture.rgb, scene(), 4 if kind == "GIF" else 2) and picture.size == (WIDTH, HEIGHT) and picture.rgb.dtype == np.uint8 and picture.notes == ()


def test_printing_colours():
    picture = read_picture(coded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95))
    assert near(picture.rgb, scene(), 3) and "CMYK" in picture.notes[0]


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_grey_palette_and_alpha_modes_become_rgb(mode):
    picture = read_picture(coded(Image.fromarray(scene()).convert(mode), "PNG"))
    wanted = np.asarray(Image.fromarray(scene()).convert(mode).convert("RGB"))
    assert near(picture.rgb, wanted, 0.01) and picture.notes == ()            # opaque throughout: nothing to say


def test_transparency_is_shown_on_white():
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, WIDTH // 2:] = 255
    alpha[:10, :10] = 128
    picture = read_picture(coded(Image.fromarray(np.dstack([scene(), alpha])), "PNG"))
    part = alpha[..., None] / 255
    assert near(picture.rgb, scene() * part + 255 * (1 - part), 1) and "transparent" in picture.notes[0]
    palette = Image.fromarray(scene()).convert("P")
    assert "transparent" in read_picture(coded(palette, "GIF", transparency=palette.getpixel((3, 3)))).notes[0]


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP", "PNG"):
        picture = read_picture(coded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert picture.rgb[..., 0].min() > 240 and picture.rgb[..., 2].max() < 15 and "first frame" in picture.notes[0], kind


def test_sixteen_bits():
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    picture = read_picture(coded(Image.fromarray(values), "PNG"))
    assert near(picture.rgb, np.repeat((values / 257)[..., None], 3, 2), 1) and "8 bits" in picture.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_photo_is_turned_upright(orientation):
    upright = scene()
    # What a camera stores for each orientation, so that turning it back gives the scene.
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
              7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(coded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=95, exif=exif))
    assert near(picture.rgb, upright, 2) and picture.size == (WIDTH, HEIGHT)
    assert bool(picture.notes) == (orientation != 1)


def test_one_pixel_and_a_line_of_pixels():
    picture = read_picture(coded(Image.new("RGB", (1, 1), (9, 8, 200)), "PNG"))
    assert picture.rgb.tolist() == [[[9, 8, 200]]] and "1 x 1" in picture.notes[0]
    assert read_picture(coded(Image.new("RGB", (5000, 1)), "PNG")).rgb.shape == (1, MAX_SIDE, 3)


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (200_000, 600)])
def test_too_large_is_refused_from_the_header(size):
    with pytest.raises(InputError) as error:
        read_picture(png_header(*size))
    assert "too large" in one_sentence(error)


def test_a_large_picture_is_scaled_down():
    picture = read_picture(coded(Image.fromarray(scene()).resize((4000, 2400)), "JPEG"))
    assert picture.rgb.shape == (614, MAX_SIDE, 3) and picture.size == (4000, 2400)
    assert near(picture.rgb, np.asarray(Image.fromarray(scene()).resize((MAX_SIDE, 614))), 4)
    assert shrink(scene(), 500).shape == scene().shape


def test_a_truncated_jpeg_is_used_as_far_as_it_goes():
    noisy = np.clip(scene() + np.random.default_rng(0).normal(0, 20, scene().shape), 0, 255).astype(np.uint8)
    whole = coded(Image.fromarray(noisy), "JPEG", quality=90)
    cut = read_picture(whole[:int(len(whole) * 0.6)])
    assert "cut off" in cut.notes[0] and cut.rgb.shape == noisy.shape
    assert np.array_equal(cut.rgb[:HEIGHT // 2], read_picture(whole).rgb[:HEIGHT // 2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_cut_anywhere_it_is_a_picture_or_one_sentence(kind):
    data = coded(Image.fromarray(scene()), kind)
    for part in np.linspace(0, 0.99, 25):
        try:
            assert read_picture(data[:int(len(data) * part)]).rgb.shape == scene().shape
        except InputError as error:
            assert str(error).endswith(".")


@pytest.mark.parametrize("data,said", [
    (b"", "0 bytes"), (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "SVG"), (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>", "SVG"),
    (b"<!DOCTYPE html><html><body>404</body></html>", "web page"), (b"\n <HTML>", "web page"), (b"\0\0\0\x20ftypheic\0\0\0\0mif1", "HEIC"),
    (b"just words", "cannot be read as a picture"), (bytes(range(256)) * 40, "cannot be read as a picture"), (b"\xff\xd8\xff\xe0", "cannot be read"),
    (b"%PDF-1.7\n%", "cannot be read as a picture")])
def test_what_is_no_picture_is_refused_whatever_it_is_named(data, said, tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_picture(path)
    assert said in one_sentence(error)


def test_paths_that_lead_nowhere(tmp_path):
    for path in (tmp_path / "absent.jpg", tmp_path, "a\0b.jpg", ""):
        with pytest.raises(InputError, match="does not exist"):
            read_picture(path)


# ---- the post ------------------------------------------------------------------------------------------------------------


def test_either_half_may_be_absent_and_it_is_said():
    words = load_post(None, "I love it")
    assert words.picture is None and words.words == ("I", "love", "it") and "no picture" in words.notes[0]
    for text in (None, "", "  \n\t", "\u200b\u200b"):
        picture = load_post(scene(), text)
        assert picture.words == () and "no words" in picture.notes[0] and picture.picture.shape == scene().shape
    with pytest.raises(InputError) as error:
        load_post(None, " ")
    assert "neither" in one_sentence(error)
    assert replace_text(load_post(scene(), ""), "so good").words == ("so", "good")


@pytest.mark.parametrize("text,note", [
    ("😍😍 🎉", "emoji"), ("!!! ...", "letters"), ("اليوم جميل جدا وأنا سعيد", "right to left"), ("היום יפה מאוד", "right to left"),
    ("Das ist nicht so schön, und ich bin sehr müde", "English"), ("今天天气很好我很高兴", "English"), ("RT @a: good", None), ("What a day! http://t.co/x", None)])
def test_other_texts_work_with_a_note(text, note):
    post = load_post(scene(), text)
    assert post.words and "".join(post.words) == text.replace(" ", "")
    assert (note is None and not post.notes) or any(note in said for said in post.notes)


def test_long_texts_are_cut_and_it_is_said():
    post = load_post(None, "lovely day " * 910)               # 10,010 characters
    assert len(post.words) == MAX_WORDS and any("1820 words" in note for note in post.notes)
    assert load_post(None, "a" * 10_000).words
    with pytest.raises(InputError, match="no post"):
        load_post(None, "a" * 1_000_001)


def test_odd_types_are_refused():
    for image, text in ((3, "a"), (None, 3), (np.zeros((4, 4)), "a"), (np.zeros((4, 4, 3), np.float32), "a"), (np.zeros((0, 4, 3), np.uint8), "a")):
        with pytest.raises(InputError) as error:
            load_post(image, text)
        one_sentence(error)
    assert load_post(None, "a\0b \ud800c").words == ("ab", "c")

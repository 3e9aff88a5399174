"""Small media files of every kind people upload, written with PyAV for the tests.

The picture tells its own time and position: the upper left quarter is red, the rest is as bright as time is late.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {".mp4": ("libx264", "aac"), ".mov": ("libx264", "aac"), ".webm": ("libvpx", "libopus"), ".mkv": ("ffv1", "flac"),
          ".avi": ("mpeg4", "libmp3lame"), ".wav": (None, "pcm_s16le"), ".mp3": (None, "libmp3lame"), ".m4a": (None, "aac")}
MILLISECOND = Fraction(1, 1000)


def brightness(time: float, seconds: float) -> float:
    """The grey level that `picture` paints outside the red quarter."""
    return 40 + 200 * time / seconds


def picture(time: float, seconds: float, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    image = np.full((height, width, 3), round(brightness(time, seconds)), np.uint8)
    image[:height // 2, :width // 2] = (255, 0, 0)
    return image


def tone(seconds: float, rate: int = 44_100, level: float = 0.5) -> np.ndarray:
    """(samples,) float32: 440 Hz."""
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_media(path: Path, seconds: float = 2.0, *, size: tuple[int, int] = (160, 120), rate: int = 25, times=None,
                rotation: int | None = None, flip: bool = False, pixels: str = "yuv420p", aspect: Fraction | None = None,
                sound: np.ndarray | None | str = "tone", channels: int = 2, sound_rate: int = 44_100, sound_start: float = 0.0,
                picture_too: bool = True, options: dict | None = None, video_options: dict | None = None) -> str:
    """Write a file whose kind its suffix tells; returns its path as text.

    times: seconds of each frame, for a variable rate. sound: (samples,) float32 for every channel, or None.
    """
    video_codec, audio_codec = CODECS[path.suffix]
    width, height = size
    with av.open(str(path), "w", container_options=options or {}) as container:
        if video_codec and picture_too:
            fast = {"deadline": "realtime", "cpu-used": "8"} if video_codec == "libvpx" else {}
            video = container.add_stream(video_codec, rate=rate, options=fast | (video_options or {}))
            video.width, video.height, video.pix_fmt = width, height, pixels
            video.codec_context.time_base = MILLISECOND
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
            if rotation is not None:
                video.set_display_rotation(rotation, hflip=flip)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=48_000 if audio_codec == "libopus" else sound_rate,
                                         layout="stereo" if channels == 2 else "mono")
        if video_codec and picture_too:
            for time in times if times is not None else np.arange(0, seconds, 1 / rate):
                frame = av.VideoFrame.from_ndarray(picture(time, seconds, width, height), format="rgb24")
                frame = frame.reformat(format=pixels)
                frame.pts, frame.time_base = round(time * 1000), MILLISECOND
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if sound is not None:
            _write_sound(container, audio, tone(seconds, sound_rate) if isinstance(sound, str) else sound,
                         channels, sound_rate, sound_start)
    return str(path)


def _write_sound(container, stream, wave: np.ndarray, channels: int, rate: int, start: float) -> None:
    frame = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout="stereo" if channels == 2 else "mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_float_wav(path: Path, wave: np.ndarray, rate: int = 22_050, channels: int = 1) -> str:
    """A wav of 32-bit floats, which may hold what no other kind can: NaN, infinity, values beyond 1, any number of channels."""
    data, block = np.repeat(wave.astype("<f4"), channels).tobytes(), 4 * channels
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, channels, rate, rate * block,
                         block, 32, b"data", len(data))
    path.write_bytes(header + data)
    return str(path)


def jpeg(width: int = 64, height: int = 64) -> bytes:
    """A small JPEG."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(0, 1, width, height), format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def with_cover(mp3: str) -> str:
    """Put an ID3 cover picture in front of an mp3 file."""
    body = b"\0image/jpeg\0\x03\0" + jpeg()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    length = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    file = Path(mp3)
    file.write_bytes(b"ID3\x03\0\0" + length + frame + file.read_bytes())
    return mp3


def m4a_with_cover(path: Path, sound: str) -> str:
    """An m4a with the sound of another file and a cover picture, which is a video stream to ffmpeg."""
    with av.open(sound) as source, av.open(str(path), "w", format="mp4") as container:
        audio = container.add_stream_from_template(source.streams.audio[0])
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = audio
                container.mux(packet)
        frame = av.VideoFrame.from_ndarray(picture(0, 1, 64, 64), format="rgb24").reformat(format="yuvj420p")
        container.mux([*cover.encode(frame), *cover.encode()])
    return str(path)


def truncated(path: str, part: float) -> str:
    """Cut a file to the first `part` of its bytes."""
    file = Path(path)
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * part)])
    return path

"""One pass over a media file with PyAV (it carries its own ffmpeg): frames at a few a second, mono waveform, what went wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from msademo.errors import InputError

SAMPLE_RATE = 22_050        # Hz, mono; what librosa features are computed at
FRAME_RATE = 5.0            # frames kept per second of video
MAX_SECONDS = 60.0          # longer clips: the first minute, and a note says so; limits.py may ask for less
MAX_SIDE = 640              # pixels; larger frames are scaled down as they are kept
MAX_PIXELS = 8192 * 8192    # a frame; beyond it a file is refused
MAX_DECODED = 4e9           # pixels a clip may cost to decode in full; beyond it, key frames only
SILENCE = 10 ** (-60 / 20)  # peak of a waveform taken for silent
MIN_SOUND = 0.1             # seconds; less is no voice
MAX_GAP = 0.1               # seconds without sound that are filled, so that sound stays in step with the picture

# Containers that hold their own data. Playlists and the like, which name other files, are not opened.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,mp3,ogg,flac,aac"
_ANNOUNCES_LENGTH = ("mov", "matroska", "avi")      # the others derive it from the bit rate or the size of the file


class Frames:
    """Keeps the frame nearest to each tick of FRAME_RATE, upright and small, and nothing of the others."""

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self.seconds = seconds
        self.times: list[float] = []
        self.end = 0.0
        self.pixel_aspect = 1.0                         # width of a pixel over its height
        self._buffer: np.ndarray | None = None
        self._previous: tuple[av.VideoFrame, float] | None = None
        self._turn: tuple[bool, int, int] | None = None
        self._tick = 0
        self._scaler = VideoReformatter()

    def offer(self, frame: av.VideoFrame, time: float, length: float) -> None:
        """The next frame in order of time; `time` and `length` in seconds."""
        while self._tick / FRAME_RATE <= time:
            tick = self._tick / FRAME_RATE
            before = self._previous is not None and tick - self._previous[1] <= time - tick
            self._keep(*(self._previous if before else (frame, time)))
            self._tick += 1
        self._previous = frame, time
        self.end = max(self.end, time + length)

    def taken(self) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        return np.zeros((0, 0, 0, 3), np.uint8) if self._buffer is None else self._buffer[:len(self.times)]

    def _keep(self, frame: av.VideoFrame, time: float) -> None:
        if self.times and time <= self.times[-1]:       # still the nearest to this tick too: a slow or paused stream
            return
        width, height = frame.width * self.pixel_aspect, frame.height
        scale = min(1.0, MAX_SIDE / max(width, height))
        small = self._scaler.reformat(frame, max(1, round(width * scale)), max(1, round(height * scale)), "rgb24")
        if self._turn is None:
            self._turn = _turn(frame)
        swap, down, right = self._turn
        image = (small.to_ndarray().swapaxes(0, 1) if swap else small.to_ndarray())[::down, ::right]
        if self._buffer is None:                        # untouched rows of an empty array cost no memory
            self._buffer = np.empty((int(self.seconds * FRAME_RATE) + 1, *image.shape), np.uint8)
        if image.shape != self._buffer.shape[1:]:       # a recorder may change its size midway; the first one stands
            height, width = self._buffer.shape[1:3]
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(image)).reformat(width, height).to_ndarray()
        self._buffer[len(self.times)] = image
        self.times.append(time)


def _turn(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """How a phone wants its film shown, to quarter turns and mirrorings: (swap the axes, row step, column step)."""
    if not frame.rotation:      # most films; side_data ties a frame into a cycle that only the garbage collector frees
        return False, 1, 1
    matrix = frame.side_data[SideData.DISPLAYMATRIX]
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()         # x' = a x + c y, y' = b x + d y
    swap = abs(b) > abs(a)
    right, down = (c, b) if swap else (a, d)
    return swap, -1 if down < 0 else 1, -1 if right < 0 else 1


class Sound:
    """Collects the waveform at SAMPLE_RATE, each part at its own time."""

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self.seconds = seconds
        self._parts: list[np.ndarray] = []
        self._samples = 0
        self._resampler: av.AudioResampler | None = None
        self._format: tuple | None = None

    @property
    def end(self) -> float:
        return self._samples / SAMPLE_RATE

    def offer(self, frame: av.AudioFrame, time: float) -> None:
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._format:
            self.flush()
            self._format, self._resampler = kind, av.AudioResampler(format="flt", rate=SAMPLE_RATE)
        gap = round(min(time, self.seconds) * SAMPLE_RATE) - self._samples
        if gap > MAX_GAP * SAMPLE_RATE:
            self._add(np.zeros(gap, np.float32))
        for part in self._resampler.resample(frame):
            self._mix(part)

    def flush(self) -> None:
        for part in self._resampler.resample(None) if self._resampler else ():
            self._mix(part)
        self._resampler = None

    def _mix(self, part: av.AudioFrame) -> None:
        # The mean of the channels, because ffmpeg's own mono of a float stereo track is 1.4 times too loud. They come
        # interleaved (1, samples * channels): PyAV's planar arrays crash the process beyond 8 channels.
        channels = part.to_ndarray().reshape(-1, part.layout.nb_channels)
        self._add(np.nan_to_num(channels.mean(axis=1, dtype=np.float32), nan=0.0, posinf=1.0, neginf=-1.0))

    def _add(self, part: np.ndarray) -> None:
        room = int(self.seconds * SAMPLE_RATE) - self._samples
        self._parts.append(part[:room])
        self._samples += len(self._parts[-1])

    def waveform(self, notes: list[str]) -> np.ndarray | None:
        """(S,) float32 in [-1, 1], or None with a note why the voice is missing."""
        audio = np.clip(np.concatenate(self._parts), -1.0, 1.0) if self._parts else np.zeros(0, np.float32)
        if len(audio) >= MIN_SOUND * SAMPLE_RATE and np.abs(audio).max() >= SILENCE:
            return audio
        notes.append("The sound is silent, so the voice counts as missing." if len(audio) >= MIN_SOUND * SAMPLE_RATE else
                     "There is no sound, so the voice counts as missing.")
        return None


@dataclass(frozen=True)
class Media:
    """What is in a file; without arguments, what a clip without a file has.

    frames: (N, H, W, 3) uint8. times: (N,) float64, seconds. audio: (S,) float32 in [-1, 1] at SAMPLE_RATE, None without sound.
    duration: seconds of picture or sound, whichever lasts longer. notes: sentences for the user.
    """

    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    audio: np.ndarray | None = None
    duration: float = 0.0
    notes: tuple[str, ...] = ()


class Reading:
    """What decoding has collected so far, of the first `seconds`; frames of more than `pixels` are refused."""

    def __init__(self, seconds: float, pixels: int):
        self.seconds, self.pixels = seconds, pixels
        self.frames, self.sound = Frames(seconds), Sound(seconds)
        self.notes: list[str] = []
        self.damaged = 0        # packets, frames or ends of the file that could not be used

    @property
    def duration(self) -> float:
        return min(self.seconds, max(self.frames.end, self.sound.end))

    def check_size(self, width: int, height: int) -> None:
        if width * height > self.pixels:
            raise InputError(_too_large(width, height))

    def done(self) -> Media:
        audio = self.sound.waveform(self.notes)
        return Media(self.frames.taken(), np.asarray(self.frames.times, np.float64), audio, self.duration, tuple(self.notes))


def _too_large(width: int, height: int) -> str:
    return f"The picture is {width} x {height} pixels, which is too large; scale the video to at most 4K and try again."


def _open(path: str):
    """The opened container. InputError when there is nothing ffmpeg reads under this path."""
    file = Path(os.path.abspath(path)) if "\0" not in path else None
    if file is None or not file.is_file():
        raise InputError("The media file does not exist; choose a file on this computer.")
    if file.stat().st_size == 0:
        raise InputError("The media file is empty (0 bytes); record or upload it again.")
    try:
        return av.open(str(file), container_options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"},
                       options={"max_pixels": str(MAX_PIXELS)}, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError("The file cannot be read as video or sound: it is cut off, damaged or of another kind; "
                         "use mp4, webm, mov, avi, wav, mp3 or m4a.") from error


def _pictures(container) -> Iterator:
    """Video streams that hold a film: cover art and thumbnails are no picture of a speaker."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return (s for s in container.streams.video if s.codec_context is not None and not s.disposition & still)


def decode(path: str, seconds: float | None = None, pixels: int | None = None) -> Media:
    """The first seconds of picture and sound, in one pass; frames of at most so many pixels. None: MAX_SECONDS, MAX_PIXELS.

    It decodes in this process: what a stranger gives belongs into apart.py's.
    """
    media = Reading(seconds or MAX_SECONDS, pixels or MAX_PIXELS)
    with _open(path) as container:
        video = next(_pictures(container), None)
        sound = next((s for s in container.streams.audio if s.codec_context is not None), None)
        streams = [s for s in (video, sound) if s is not None]
        announced = _announced(container, streams)
        if video is not None:
            _prepare(video, announced, media)
        origin = (container.start_time or 0) / av.time_base
        longer = _read(container, streams, origin, media)
        media.sound.flush()
        if media.duration == 0.0:
            raise InputError("Nothing in the file can be decoded: it is damaged, protected or no media; record or export it again.")
        if video is None:
            media.notes.append("There is no picture, so the face counts as missing.")
        elif not media.frames.times:
            media.notes.append("The picture cannot be decoded, so the face counts as missing.")
        if longer:
            media.notes.append(f"Only the first {media.seconds:.0f} s are used.")
        elif announced is not None and announced - media.duration > 1.0:
            media.notes.append(f"The file is cut off or damaged: of {announced:.1f} s only {media.duration:.1f} s could be read.")
        elif media.damaged:
            media.notes.append("Some parts of the file are damaged and were skipped.")
    return media.done()


def _announced(container, streams: list) -> float | None:
    """Seconds of media the file's header promises; None where it says nothing or ffmpeg would only guess."""
    if not container.format.name.startswith(_ANNOUNCES_LENGTH) or not container.duration:
        return None
    if container.format.name == "avi":      # its duration is already scaled to the size of the file, but not its counts
        return max(float(s.frames * s.time_base) for s in streams) if streams else None
    return container.duration / av.time_base


def _prepare(video, announced: float | None, media: Reading) -> None:
    """Refuse absurd sizes; spare the work of frames between key frames where decoding all would take minutes."""
    video.thread_type = "AUTO"
    video.codec_context.thread_count = min(4, os.cpu_count() or 1)      # each thread holds frames: bounded memory
    pixels = video.codec_context.width * video.codec_context.height
    media.check_size(video.codec_context.width, video.codec_context.height)
    if pixels * float(video.average_rate or 30) * min(announced or media.seconds, media.seconds) > MAX_DECODED:
        video.codec_context.skip_frame = "NONKEY"
        media.notes.append(f"The video is very large ({video.codec_context.width} x {video.codec_context.height}), "
                           "so only its key frames are used; scale it down for more.")
    aspect = float(video.sample_aspect_ratio or 1)
    if 0.25 <= aspect <= 4.0:       # tape formats; anything beyond is a broken header
        media.frames.pixel_aspect = aspect


def _read(container, streams: list, origin: float, media: Reading) -> bool:
    """Decode the streams into `media`, in order of the file; whether the file goes on after its seconds."""
    longer = False
    packets = container.demux(streams) if streams else iter(())
    while not longer:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except (av.FFmpegError, OSError):       # a file that ends early: what came before it still counts
            media.damaged += 1
            break
        stamp = packet.dts if packet.dts is not None else packet.pts
        longer = stamp is not None and float(stamp * packet.time_base) - origin > media.seconds + 1.0
        if packet.size:
            _take(packet.stream, packet, origin, media)
    for stream in streams:
        _take(stream, None, origin, media)
    return longer


def _take(stream, packet, origin: float, media: Reading) -> None:
    """Decode one packet (None: what the decoder still holds)."""
    try:
        frames = stream.decode(packet)
    except (av.FFmpegError, ValueError):
        media.damaged += 1
        return
    for frame in frames:
        is_sound = isinstance(frame, av.AudioFrame)
        follows = media.sound.end if is_sound else media.frames.end
        # Not frame.time: frames that a decoder held back until the end come without a time base.
        time = max(0.0, float(frame.pts * stream.time_base) - origin) if frame.pts is not None else follows
        if time >= media.seconds or frame.is_corrupt:
            media.damaged += bool(frame.is_corrupt)
        elif is_sound:
            media.sound.offer(frame, time)
        else:
            media.check_size(frame.width, frame.height)
            media.frames.offer(frame, time, 1.0 / float(stream.average_rate or 30))

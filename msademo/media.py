"""File -> Clip: frames with times, waveform, words with times (design: one typed result, never a silent default)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from msademo import asr as recognition
from msademo.errors import InputError
from msademo.transcript import (Word, assign_times, looks_like_subtitles, parse_subtitles, read_text_file, split_words,
                                subtitle_words)

SAMPLE_RATE = 22_050        # Hz, mono; what librosa features are computed at
FRAME_RATE = 5.0            # frames kept per second of video
MAX_SECONDS = 60.0          # longer clips: the first minute, and a note says so
MAX_SIDE = 640              # pixels; larger frames are scaled down as they are kept
MAX_WORDS = 500
MAX_PIXELS = 8192 * 8192    # a frame; beyond it a file is refused
MAX_DECODED = 4e9           # pixels a clip may cost to decode in full; beyond it, key frames only
SILENCE = 10 ** (-60 / 20)  # peak of a waveform taken for silent
MIN_SOUND = 0.1             # seconds; less is no voice
MAX_GAP = 0.1               # seconds without sound that are filled, so that sound stays in step with the picture

# Containers that hold their own data. Playlists and the like, which name other files, are not opened.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,mp3,ogg,flac,aac"
_ANNOUNCES_LENGTH = ("mov", "matroska", "avi", "wav")       # the others only guess it from the bit rate


@dataclass(frozen=True)
class Clip:
    """A decoded clip. An absent modality is empty (or None), never invented.

    frames: (N, H, W, 3) uint8 RGB, upright, long side at most 640; N = 0 without a video stream.
    frame_times: (N,) float64, seconds from the start.
    audio: (S,) float32 mono in [-1, 1] at SAMPLE_RATE, or None without sound.
    words: the transcript's words in order; empty when there are none.
    transcript_source: "given", "subtitles", "asr" or "none".
    duration: seconds of media kept (0 for a transcript alone).
    notes: sentences for the user: what is missing, what was cut, where the words come from.
    """

    frames: np.ndarray
    frame_times: np.ndarray
    audio: np.ndarray | None
    words: tuple[Word, ...]
    transcript_source: str
    duration: float
    notes: tuple[str, ...] = ()


def load_clip(path: str | None, transcript: str | None = None, *, subtitles: str | None = None, asr: bool = True) -> Clip:
    """Decode a media file and settle its words.

    path: a local media file; None for a transcript alone.
    transcript: plain text, or the content of an .srt/.vtt; "" says that there are no words; None leaves them to speech
    recognition (if `asr` and there is sound). subtitles: path of an .srt/.vtt file, instead of a transcript.
    InputError, one sentence, for what cannot be used.
    """
    if subtitles is not None and transcript is not None:
        raise InputError("Both a transcript and a subtitle file were given; give only one of them.")
    if subtitles is not None:
        transcript = read_text_file(subtitles)
        parse_subtitles(transcript)         # a file given as subtitles must be one, not a plain text
    media = _Media() if path is None else _decode(path)
    frames, times, audio, notes = media.frames.taken(), media.frames.times, media.sound.waveform(media.notes), media.notes
    duration = 0.0 if path is None else min(MAX_SECONDS, max(media.frames.end, media.sound.end))
    words, source = _words(transcript, audio if asr else None, duration, notes)
    if not (len(frames) or audio is not None or words):
        raise InputError("The file has neither a picture nor a sound that can be used, and no words were given; "
                         "choose another file.")
    return Clip(frames, np.asarray(times, np.float64), audio, words, source, duration, tuple(notes))


def _words(transcript: str | None, audio: np.ndarray | None, duration: float, notes: list[str]) -> tuple[tuple[Word, ...], str]:
    """The words and their source; `notes` gets a sentence on how far to trust them. `audio` None: no recognition."""
    if transcript is None:
        words, source = _recognised(audio, notes), "asr"
    elif looks_like_subtitles(transcript):
        words, source = subtitle_words(transcript), "subtitles"
        if duration > 0:
            inside = [word for word in words if word.start < duration]
            if len(inside) < len(words):
                notes.append(f"{len(words) - len(inside)} words of the subtitles come after the end of the clip and were left out.")
            words = tuple(Word(word.text, word.start, min(word.end, duration)) for word in inside)
    else:
        words, source = split_words(transcript), "given"
    if len(words) > MAX_WORDS:
        notes.append(f"The transcript has {len(words)} words; only the first {MAX_WORDS} are used.")
        words = words[:MAX_WORDS]
    if source == "given" and words:
        words = assign_times(words, duration)
        if duration > 0:
            notes.append("The word times are estimated: the transcript is spread evenly over the clip.")
    if transcript is not None and not words:
        notes.append("No words were given, so the words count as missing.")
    return tuple(words), source if words else "none"


def _recognised(audio: np.ndarray | None, notes: list[str]) -> tuple[Word, ...]:
    if audio is None:
        notes.append("There is no transcript, so the words count as missing.")
    elif not recognition.available():
        notes.append("There is no transcript and speech recognition is not installed, so the words count as missing.")
    else:
        words = recognition.transcribe(audio, SAMPLE_RATE)
        name = recognition.model_name()
        limits = "English only, may be wrong" if name.endswith(".en") else "may be wrong"
        notes.append(f"The words come from speech recognition ({name}: {limits}); correct them where needed." if words else
                     f"Speech recognition ({name}: {limits}) understood no words, so the words count as missing.")
        return words
    return ()


# ---- decoding ----------------------------------------------------------------------------------------------------------


class _Frames:
    """Keeps the frame nearest to each tick of FRAME_RATE, upright and small, and nothing of the others."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.end = 0.0
        self.pixel_aspect = 1.0                         # width of a pixel over its height
        self._buffer: np.ndarray | None = None
        self._previous: tuple[av.VideoFrame, float] | None = None
        self._tick = 0
        self._scaler = VideoReformatter()

    def offer(self, frame: av.VideoFrame, time: float, length: float) -> None:
        """The next frame in order of time; `time` and `length` in seconds."""
        if frame.width * frame.height > MAX_PIXELS:
            raise InputError(_too_large(frame.width, frame.height))
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
        image = _upright(small.to_ndarray(), frame)
        if self._buffer is None:                        # untouched rows of an empty array cost no memory
            self._buffer = np.empty((int(MAX_SECONDS * FRAME_RATE) + 1, *image.shape), np.uint8)
        if image.shape != self._buffer.shape[1:]:       # a recorder may change its size midway; the first one stands
            height, width = self._buffer.shape[1:3]
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(image)).reformat(width, height).to_ndarray()
        self._buffer[len(self.times)] = image
        self.times.append(time)


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Apply a phone's display matrix, x' = a x + c y and y' = b x + d y, rounded to quarter turns and mirrorings."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[::-1 if d < 0 else 1, ::-1 if a < 0 else 1]


class _Sound:
    """Collects the waveform at SAMPLE_RATE, each part at its own time."""

    def __init__(self) -> None:
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
        gap = round(min(time, MAX_SECONDS) * SAMPLE_RATE) - self._samples
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
        room = int(MAX_SECONDS * SAMPLE_RATE) - self._samples
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


@dataclass
class _Media:
    """What decoding has collected so far."""

    frames: _Frames = field(default_factory=_Frames)
    sound: _Sound = field(default_factory=_Sound)
    notes: list[str] = field(default_factory=list)
    damaged: int = 0


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


def _decode(path: str) -> _Media:
    """The first MAX_SECONDS of picture and sound, in one pass."""
    media = _Media()
    with _open(path) as container:
        video = next(_pictures(container), None)
        sound = next((s for s in container.streams.audio if s.codec_context is not None), None)
        announced = container.duration / av.time_base if container.duration else None
        if video is not None:
            _prepare(video, announced, media)
        streams = [s for s in (video, sound) if s is not None]
        origin = (container.start_time or 0) / av.time_base
        longer = _read(container, streams, origin, media)
        media.sound.flush()
        end = max(media.frames.end, media.sound.end)
        if end == 0.0:
            raise InputError("Nothing in the file can be decoded: it is damaged, protected or no media; record or export it again.")
        if video is None:
            media.notes.append("There is no picture, so the face counts as missing.")
        elif not media.frames.times:
            media.notes.append("The picture cannot be decoded, so the face counts as missing.")
        if longer:
            media.notes.append(f"Only the first {MAX_SECONDS:.0f} s are used.")
        elif announced and container.format.name.startswith(_ANNOUNCES_LENGTH) and announced - end > 1.0:
            media.notes.append(f"The file is cut off or damaged: of {announced:.1f} s only {end:.1f} s could be read.")
        elif media.damaged:
            media.notes.append("Some parts of the file are damaged and were skipped.")
    return media


def _prepare(video, announced: float | None, media: _Media) -> None:
    """Refuse absurd sizes; spare the work of frames between key frames where decoding all would take minutes."""
    video.thread_type = "AUTO"
    video.codec_context.thread_count = min(4, os.cpu_count() or 1)      # each thread holds frames: bounded memory
    pixels = video.codec_context.width * video.codec_context.height
    if pixels > MAX_PIXELS:
        raise InputError(_too_large(video.codec_context.width, video.codec_context.height))
    if pixels * float(video.average_rate or 30) * min(announced or MAX_SECONDS, MAX_SECONDS) > MAX_DECODED:
        video.codec_context.skip_frame = "NONKEY"
        media.notes.append(f"The video is very large ({video.codec_context.width} x {video.codec_context.height}), "
                           "so only its key frames are used; scale it down for more.")
    aspect = float(video.sample_aspect_ratio or 1)
    if 0.25 <= aspect <= 4.0:       # tape formats; anything beyond is a broken header
        media.frames.pixel_aspect = aspect


def _read(container, streams: list, origin: float, media: _Media) -> bool:
    """Decode the streams into `media`, in order of the file; whether the file goes on after MAX_SECONDS."""
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
        longer = stamp is not None and float(stamp * packet.time_base) - origin > MAX_SECONDS + 1.0
        if packet.size:
            _take(packet.stream, packet, origin, media)
    for stream in streams:
        _take(stream, None, origin, media)
    return longer


def _take(stream, packet, origin: float, media: _Media) -> None:
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
        if time >= MAX_SECONDS or frame.is_corrupt:
            media.damaged += bool(frame.is_corrupt)
        elif is_sound:
            media.sound.offer(frame, time)
        else:
            media.frames.offer(frame, time, 1.0 / float(stream.average_rate or 30))

"""Make the example clips: two public-domain portraits, animated, speaking with a synthetic voice.

    python examples/make_clips.py

Needs, beside what the demo needs: scikit-image (its wheel holds one portrait; `pip install scikit-image`) and the speech
synthesiser flite (`apt-get install flite`). Nothing is downloaded. The same versions give the same files, byte for
byte. Writes happy.mp4, sad.mp4, conflict.mp4 and examples.json beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np
from puppet import Pose, Puppet

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT, FPS = 480, 360, 25
LEAD, TAIL = 0.35, 0.55         # seconds of silence before and after the words
VOICE = "awb"                   # the only one of flite's that our voice network heard as happy at any pace and pitch tried; brought to a woman's pitch
CAPTION = "animated photo, synthetic voice"
PORTRAITS = {"collins": ("skimage", "data/astronaut.png", "scikit-image"),
             "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "matplotlib")}


@dataclass(frozen=True)
class Story:
    """One clip. crop: left, top and width of a 4:3 part of the portrait, in its pixels; gains: factors on red, green, blue.

    slowness, pitch: factors on the durations and the pitch of flite's voice. mood: expressions of the puppet; jaw: widest
    opening; sway: how lively the head is; droop: how far the head is bent down and tilted all along, in degrees.
    """

    name: str
    title: str
    transcript: str
    note: str
    portrait: str
    crop: tuple[int, int, int]
    mirrored: bool
    gains: tuple[float, float, float]
    slowness: float
    pitch: float
    mood: dict[str, float]
    jaw: float
    sway: float
    droop: tuple[float, float]
    seed: int


STORIES = (
    Story("happy", "Happy: everything agrees",
          "I really loved this movie! The story is wonderful, the actors are brilliant, and I was happy from beginning to end!",
          "Words, voice and face are all glad: take one away and see how far the other two carry the score.",
          "collins", (95, 15, 270), False, (1.0, 1.0, 1.0), 0.95, 1.9,
          {"happy": .35}, .13, 1.0, (0.0, 0.0), 1),
    Story("sad", "Sad: everything agrees",
          "I was really disappointed. The story was boring, and the acting was terrible. What a waste of time.",
          "Words, voice and face are all let down: see how many words can go before the score leaves the negative side.",
          "hopper", (30, 60, 470), False, (0.97, 0.98, 1.0), 1.4, 1.7,
          {"sad": 1.0}, .09, .4, (6.0, -2.5), 2),
    Story("conflict", "Conflict: glad words, sad face",
          "It is an amazing movie, really wonderful. I loved every minute of it.",
          "The words praise, the voice is flat and the face is sad: compare the score with the words and without them.",
          "hopper", (80, 88, 375), True, (1.04, 1.0, 0.93), 1.3, 1.5,
          {"sad": 1.0}, .08, .35, (6.0, 3.0), 3),
)


def portrait(story: Story) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB: the story's part of its portrait."""
    package, path, name = PORTRAITS[story.portrait]
    spec = find_spec(package)
    if spec is None:
        sys.exit(f"The portrait comes with {name}, which is not installed; run `pip install {name}` and try again.")
    picture = cv2.cvtColor(cv2.imread(str(Path(spec.origin).parent / path)), cv2.COLOR_BGR2RGB)
    left, top, width = story.crop
    part = picture[top:top + width * HEIGHT // WIDTH, left:left + width]
    part = cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC if width < WIDTH else cv2.INTER_AREA)
    part = part[:, ::-1] if story.mirrored else part
    return np.clip(part * np.array(story.gains), 0, 255).astype(np.uint8)


def speak(story: Story) -> tuple[np.ndarray, int]:
    """The words as sound: (S,) float32 with a peak of 0.7, and its sample rate."""
    program = shutil.which("flite")
    if program is None:
        sys.exit("The voice comes from flite, which is not installed; run `apt-get install flite` and try again.")
    with tempfile.TemporaryDirectory() as folder:
        wav = os.path.join(folder, "voice.wav")
        subprocess.run([program, "-voice", VOICE, "--setf", f"duration_stretch={story.slowness}", "--setf", f"f0_shift={story.pitch}",
                        "-t", story.transcript, "-o", wav], check=True)
        with av.open(wav) as container:
            rate = container.streams.audio[0].rate
            sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)]) / 32768
    spoken = np.flatnonzero(np.abs(sound) > 0.01)
    sound = sound[spoken[0]:spoken[-1] + 1]
    silence = np.zeros(int(LEAD * rate)), np.zeros(int(TAIL * rate))
    return np.concatenate([silence[0], 0.7 * sound / np.abs(sound).max(), silence[1]]).astype(np.float32), rate


def loudness(sound: np.ndarray, rate: int) -> np.ndarray:
    """(N,) in [0, 1], one value a frame of the film: how loud the voice is around it, as a mouth would follow."""
    frames = int(np.ceil(len(sound) / rate * FPS))
    edges = (np.arange(frames + 1) * rate / FPS).astype(int)
    level = np.array([np.sqrt(np.mean(sound[a:b] ** 2)) if b > a and a < len(sound) else 0 for a, b in zip(edges, edges[1:])])
    level = np.convolve(level, (.2, .6, .2), "same")
    return np.clip(level / np.percentile(level, 95), 0, 1)


def drift(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """(N,) smooth random movement of about unit size, turning about every `seconds`."""
    knots = rng.normal(size=int(frames / FPS / seconds) + 4)
    curve = np.interp(np.arange(frames) / FPS / seconds, np.arange(len(knots)), knots)
    return cv2.GaussianBlur(curve[None], (0, 0), seconds * FPS / 3).ravel()


def blinks(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(N,) in [0, 1], 1 = closed: a blink of a quarter of a second every two to four."""
    closed = np.zeros(frames)
    shape = np.array([.35, .9, 1, .8, .45, .15])
    start = int(FPS * rng.uniform(0.8, 1.6))
    while start + len(shape) < frames:
        closed[start:start + len(shape)] = shape
        start += int(FPS * rng.uniform(2, 4))
    return closed


def poses(story: Story, loud: np.ndarray) -> list[Pose]:
    """The film's movements: the jaw follows the voice, brows and head its stresses, the rest wanders."""
    rng, frames = np.random.default_rng(story.seed), len(loud)
    lids, wander = blinks(rng, frames), [story.sway * drift(rng, frames, s) for s in (1.1, 0.9, 1.3, 1.0, 1.2)]
    rounding = np.clip(drift(rng, frames, 0.25), 0, 1) * loud
    stress = story.sway * np.convolve(loud, np.ones(9) / 9, "same")
    strength = 1 + 0.12 * drift(rng, frames, 1.5)
    lowered, tilt = story.droop
    return [Pose({**{name: value * strength[i] for name, value in story.mood.items()}, "round": 0.6 * rounding[i], "raise": 0.35 * stress[i]},
                 jaw=story.jaw * loud[i] ** 0.8, blink=lids[i], shift=(.05 * wander[0][i], .03 * wander[1][i] + .04 * stress[i]),
                 yaw=4 * wander[2][i], pitch=3 * wander[3][i] - lowered, roll=1.6 * wander[4][i] + tilt) for i in range(frames)]


def captioned(frame: np.ndarray) -> np.ndarray:
    """The frame with CAPTION in its corner, so that nobody takes the film for a recording."""
    frame = np.ascontiguousarray(frame)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(frame, CAPTION, (8, HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    return frame


def write(path: Path, frames: list[np.ndarray], sound: np.ndarray, rate: int) -> None:
    """An mp4 that plays everywhere: H.264 with AAC, its index in front. One thread and no dates, so that it is reproducible."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as film:
        film.metadata["comment"] = f"{CAPTION}; see examples/README.md"
        video = film.add_stream("libx264", rate=FPS, options={"crf": "24", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        voice = film.add_stream("aac", rate=rate, layout="mono")
        voice.bit_rate = 64_000
        for stream in (video, voice):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            part = av.AudioFrame.from_ndarray(sound[None, start:start + 1024], format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = rate, start, Fraction(1, rate)
            film.mux(voice.encode(part))
        film.mux(voice.encode(None))


def listing() -> list[dict[str, str]]:
    """What examples.json holds: one entry a clip, in the order they are shown."""
    return [{"file": f"{s.name}.mp4", "title": s.title, "transcript": s.transcript, "note": s.note} for s in STORIES]


def main() -> None:
    for story in STORIES:
        sound, rate = speak(story)
        puppet = Puppet(portrait(story))
        frames = [captioned(puppet.frame(pose)) for pose in poses(story, loudness(sound, rate))]
        path = HERE / f"{story.name}.mp4"
        write(path, frames, sound, rate)
        print(f"{path.name}: {len(sound) / rate:.1f} s, {path.stat().st_size / 1000:.0f} kB")
    (HERE / "examples.json").write_text(json.dumps(listing(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

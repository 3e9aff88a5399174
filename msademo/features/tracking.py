"""Which of the faces in a clip is the one on show: detections linked over time, the most prominent person first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OVERLAP = 0.15      # least intersection over union of one person's boxes in neighbouring frames
PATIENCE = 1.0      # seconds a person may go undetected and still be recognised by place


@dataclass(frozen=True)
class Followed:
    """which (N,) int: the detection followed in each frame, -1 for none; boxes (N, 4) float: where that person is, or was or
    will be when undetected, NaN where nobody is followed; faces_seen: most faces in one frame; people: how many were followed."""

    which: np.ndarray
    boxes: np.ndarray
    faces_seen: int
    people: int


@dataclass
class Person:
    """One linked face: frame -> detection and box, and the sum of its prominence over frames."""

    which: dict[int, int] = field(default_factory=dict)
    boxes: dict[int, np.ndarray] = field(default_factory=dict)
    prominence: float = 0.0

    @property
    def span(self) -> tuple[int, int]:
        return min(self.boxes), max(self.boxes)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2."""
    width, height = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, width) * max(0.0, height)
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / whole) if whole > 0 else 0.0


def prominence(detection: np.ndarray, size: tuple[int, int]) -> float:
    """Share of the picture the face covers, times its score, halved from the centre to the edge."""
    height, width = size
    x, y = (detection[:2] + detection[2:4]) / 2
    away = max(abs(x / width - 0.5), abs(y / height - 0.5)) * 2
    area = (detection[2] - detection[0]) * (detection[3] - detection[1]) / (height * width)
    return float(area * detection[4] * (1 - 0.5 * min(1.0, away)))


def link(detections: list[np.ndarray], times: np.ndarray, size: tuple[int, int]) -> list[Person]:
    """Join the boxes of neighbouring frames that overlap most, best pairs first."""
    people: list[Person] = []
    for frame, faces in enumerate(detections):
        recent = [person for person in people if times[frame] - times[person.span[1]] <= PATIENCE]
        pairs = sorted(((overlap(person.boxes[person.span[1]], face), p, f)
                        for p, person in enumerate(recent) for f, face in enumerate(faces)), reverse=True)
        owner: dict[int, Person] = {}
        for value, p, f in pairs:
            if value >= OVERLAP and f not in owner and recent[p] not in owner.values():
                owner[f] = recent[p]
        for f, face in enumerate(faces):
            if f not in owner:
                people.append(Person())
            person = owner.get(f, people[-1])
            person.which[frame], person.boxes[frame] = f, face[:4]
            person.prominence += prominence(face, size)
    return people


def follow(detections: list[np.ndarray], times: np.ndarray, size: tuple[int, int]) -> Followed:
    """detections: per frame (M, 5) x1 y1 x2 y2 score; size (H, W) -> whom to look at in each frame.

    From a person's first to last appearance nobody else is looked at: a frame where the detector loses them gets the box
    nearest in time. Only before and after (a cut) the next most prominent person takes over.
    """
    which, boxes = np.full(len(detections), -1), np.full((len(detections), 4), np.nan)
    followed: list[Person] = []
    for person in sorted(link(detections, times, size), key=lambda person: -person.prominence):
        first, last = person.span
        if np.isnan(boxes[first:last + 1]).all():
            followed.append(person)
            known = np.array(sorted(person.boxes))
            for frame in range(first, last + 1):
                which[frame] = person.which.get(frame, -1)
                boxes[frame] = person.boxes[known[np.abs(times[known] - times[frame]).argmin()]]
    return Followed(which, boxes, max(map(len, detections), default=0), len(followed))

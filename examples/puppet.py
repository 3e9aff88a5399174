"""Move the face of one photograph: talk, blink, nod, smile, look sad.

The 468 points of mediapipe's face mesh are displaced, and the picture follows them (piecewise linear on their Delaunay
triangles). The lower jaw is a layer of its own below the lip line, so that an opening mouth uncovers a dark inside instead
of stretching lips or teeth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator

# Vertices of mediapipe's face mesh. Right is the person's own right; MIRROR gives the left twin of a right vertex.
MIRROR = {107: 336, 55: 285, 105: 334, 70: 300, 61: 291, 205: 425, 159: 386, 145: 374, 50: 280}
LOWER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]          # upper edge of the lower lip, corner to corner
UPPER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]          # lower edge of the upper lip
LIDS = [([246, 161, 160, 159, 158, 157, 173], [7, 163, 144, 145, 153, 154, 155], [247, 30, 29, 27, 28, 56, 190]),
        ([466, 388, 387, 386, 385, 384, 398], [249, 390, 373, 374, 380, 381, 382], [467, 260, 259, 257, 258, 286, 414])]
EYES, CHIN = (159, 145, 386, 374), 152
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
        136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]

# An expression at full strength: vertex -> (outwards, down, reach), all in distances between the eyes. Gaussian around it.
EXPRESSIONS = {
    "happy": {61: (.10, -.11, .20), 205: (.02, -.05, .22), 145: (0, -.03, .10), 105: (0, -.02, .18)},
    "sad": {61: (-.02, .08, .16), 205: (0, .02, .25), 107: (-.05, -.15, .22), 55: (-.035, -.06, .12), 70: (.025, .105, .20),
            159: (0, .035, .09)},
    "raise": {105: (0, -.08, .28), 107: (0, -.03, .15)},
    "round": {61: (-.10, 0, .15)},
}


@dataclass(frozen=True)
class Pose:
    """One frame. expressions: name of EXPRESSIONS -> strength; jaw: opening in distances between the eyes; blink in [0, 1];
    shift: (right, down) of the head in the same distances; yaw, pitch and roll in degrees."""

    expressions: dict[str, float]
    jaw: float = 0.0
    blink: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


class Puppet:
    """picture (H, W, 3) uint8 RGB with one face. ValueError when no face is found in it."""

    def __init__(self, picture: np.ndarray):
        self.picture = picture
        self.height, self.width = picture.shape[:2]
        mesh = face_mesh(picture)
        self.points, depth = mesh[:, :2], mesh[:, 2]
        eyes = self.points[list(EYES)]
        self.unit = float(np.linalg.norm(eyes[:2].mean(0) - eyes[2:].mean(0)))
        self.middle = float(self.points[[10, 1, CHIN], 0].mean())
        self.neck = self.points[CHIN] + (0, 0.8 * self.unit)
        self.depth = depth - depth[OVAL].mean()
        self.surroundings, self.follows = self._surroundings()
        self.jaw_share = self._jaw_share(self.points)
        self.below_lips = (np.arange(self.height)[:, None] > self._lip_line(np.arange(self.width))[None]).astype(np.float32)
        between_lips = np.isin(np.arange(len(self.points)), UPPER_LIP[1:-1])
        above = (self.jaw_share == 0) & (np.abs(self.points[:, 0] - self.middle) < self._mouth_half()) & (
            self.points[:, 1] > self.points[2, 1])                      # vertex 2: under the nose
        self.in_jaw_layer = ~(between_lips | above)

    def _surroundings(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (P, 2) around the face, and how much (P,) of the head's movement each follows: hair all, background none."""
        y, x = np.mgrid[0:self.height:18, 0:self.width:18].reshape(2, -1).astype(float)
        oval = self.points[OVAL]
        centre, radius = (oval.min(0) + oval.max(0)) / 2, np.ptp(oval, axis=0) / 2
        distance = np.hypot((x - centre[0]) / radius[0], (y - centre[1]) / radius[1])
        ramp = np.clip((2.6 - distance) / 1.3, 0, 1)
        outside = distance > 1.25
        border = [(a, b) for a in (-60, self.width + 60) for b in np.linspace(-60, self.height + 60, 8)]
        border += [(a, b) for b in (-60, self.height + 60) for a in np.linspace(-60, self.width + 60, 10)[1:-1]]
        points = np.concatenate([np.stack([x, y], 1)[outside], border])
        follows = np.concatenate([(ramp * ramp * (3 - 2 * ramp))[outside], np.zeros(len(border))])
        return points, follows

    def _mouth_half(self) -> float:
        return float(np.ptp(self.points[LOWER_LIP, 0]) / 2)

    def _lip_line(self, x: np.ndarray) -> np.ndarray:
        line = self.points[LOWER_LIP]
        order = np.argsort(line[:, 0])
        return np.interp(x, line[order, 0], line[order, 1])

    def _jaw_share(self, points: np.ndarray) -> np.ndarray:
        """(P,) in [0, 1]: how far each point goes down with the jaw. Nothing at the mouth's corners, ever wider towards the chin."""
        line = self._lip_line(points[:, 0])
        down = np.clip((points[:, 1] - line + 1e-6) / (self.points[CHIN, 1] - line), 0, 1.6)
        centre = self.points[LOWER_LIP, 0].mean()
        across = np.abs(points[:, 0] - centre) / (self._mouth_half() * (1 + 1.1 * np.minimum(down, 1)))
        share = np.clip(1 - across**2, 0, 1) * np.clip((1.6 - down) / 0.5, 0, 1)
        return np.where(points[:, 1] >= line - 1e-3, share, 0)

    def _moved_face(self, pose: Pose) -> np.ndarray:
        """(468, 2) displacement by expression and eyelids, without jaw and head."""
        move = np.zeros_like(self.points)
        for name, strength in pose.expressions.items():
            for vertex, (out, down, reach) in EXPRESSIONS[name].items():
                for twin in (vertex, MIRROR[vertex]):
                    centre = self.points[twin]
                    near = np.exp(-((self.points - centre) ** 2).sum(1) / (2 * (reach * self.unit) ** 2))
                    move += strength * self.unit * near[:, None] * (np.sign(centre[0] - self.middle) * out, down)
        for upper, lower, fold in LIDS:
            way = self.points[lower] + move[lower] - self.points[upper] - move[upper]
            move[upper] += 0.92 * pose.blink * way
            move[fold] += 0.45 * pose.blink * way
        return move

    def _with_head(self, points: np.ndarray, depth: np.ndarray, follows: np.ndarray, pose: Pose) -> np.ndarray:
        """Where the points are after the head moved: turned about the neck, nearer parts (depth < 0) shifted further."""
        roll = np.deg2rad(pose.roll)
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        turned = (points - self.neck) @ turn.T + self.neck + np.array(pose.shift) * self.unit
        turned += -depth[:, None] * np.sin(np.deg2rad([pose.yaw, -pose.pitch]))
        return points + follows[:, None] * (turned - points)

    def _sources(self, targets: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every pixel of the new picture, where it comes from: two (H, W) float32 maps for cv2.remap."""
        y, x = np.mgrid[0:self.height, 0:self.width]
        source = LinearNDInterpolator(targets, sources)(np.stack([x, y], -1).reshape(-1, 2))
        source = cv2.GaussianBlur(source.reshape(self.height, self.width, 2).astype(np.float32), (0, 0), 1.2)
        return source[..., 0], source[..., 1]

    def frame(self, pose: Pose) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        face = self.points + self._moved_face(pose)
        around = self._with_head(self.surroundings, np.zeros(len(self.surroundings)), self.follows, pose)
        ones = np.ones(len(face))
        head = np.concatenate([self._with_head(face, self.depth, ones, pose), around])
        upper = self._sources(head, np.concatenate([self.points, self.surroundings]))
        picture = warp(self.picture, upper).astype(np.float32)
        if pose.jaw < 0.005:
            return np.clip(picture, 0, 255).astype(np.uint8)
        keep = self.in_jaw_layer
        dropped = face + self.jaw_share[:, None] * (0, pose.jaw * self.unit)
        dropped_around = self.surroundings + (self.follows * self._jaw_share(self.surroundings))[:, None] * (0, pose.jaw * self.unit)
        jaw = np.concatenate([self._with_head(dropped, self.depth, ones, pose)[keep],
                              self._with_head(dropped_around, np.zeros(len(around)), self.follows, pose)])
        lower = self._sources(jaw, np.concatenate([self.points[keep], self.surroundings]))
        below = cv2.GaussianBlur(warp(self.below_lips, lower), (0, 0), 0.8)[..., None]
        opened = cv2.GaussianBlur(np.clip(warp(self.below_lips, upper) - warp(self.below_lips, lower), 0, 1), (0, 0), 0.8)[..., None]
        picture = picture * (1 - opened) + self._inside() * opened
        picture = picture * (1 - below) + warp(self.picture, lower) * below
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _inside(self) -> np.ndarray:
        """The colour (3,) of an open mouth: the lips', far darker."""
        x, y = self.points[17].astype(int)
        return self.picture[y - 2:y + 3, x - 2:x + 3].reshape(-1, 3).mean(0) * (0.27, 0.17, 0.16)


def warp(picture: np.ndarray, source: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return cv2.remap(picture, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def face_mesh(picture: np.ndarray) -> np.ndarray:
    """(468, 3): x and y in pixels and the depth in the same unit, negative towards the viewer."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    height, width = picture.shape[:2]
    with FaceMesh(static_image_mode=True, max_num_faces=1) as model:
        faces = model.process(picture).multi_face_landmarks
    if not faces:
        raise ValueError("mediapipe finds no face in the photograph.")
    return np.array([(p.x * width, p.y * height, p.z * width) for p in faces[0].landmark])

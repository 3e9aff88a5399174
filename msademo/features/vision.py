"""Frames -> vision tokens: one followed face, aligned as in FER2013, through our expression network.

mediapipe's models come inside its wheel. A short-range detector looks at every frame, and the full-range one where that
leads to no face (small, far ones). The face mesh runs on an enlarged crop around each detection, since on the whole frame
it misses small faces; what it refuses is no face. Frames without a face are missing, not zero.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from msademo.backbones.expression import CROP, EXPRESSIONS, ExpressionConfig, ExpressionNet, load_expression
from msademo.errors import InputError
from msademo.features.tracking import Followed, follow, overlap

__all__ = ["FaceTrack", "VisionTokens", "VISION_NAMES", "LANDMARKS", "crop_tokens", "face_track", "load_expression",
           "vision_names", "vision_tokens"]

# Right and left are the person's own; the numbers are vertices of mediapipe's face mesh.
LANDMARKS = {
    "right_eye_outer": 33, "right_eye_inner": 133, "right_eye_top": 159, "right_eye_bottom": 145,
    "left_eye_inner": 362, "left_eye_outer": 263, "left_eye_top": 386, "left_eye_bottom": 374,
    "right_brow_outer": 70, "right_brow_middle": 105, "right_brow_inner": 107,
    "left_brow_inner": 336, "left_brow_middle": 334, "left_brow_outer": 300,
    "nose_tip": 1, "mouth_right": 61, "mouth_left": 291,
    "lip_upper_outer": 0, "lip_upper_inner": 13, "lip_lower_inner": 14, "lip_lower_outer": 17,
    "forehead": 10, "chin": 152,
}
# Where FER2013's crops have the middles of the right and left eye and the mouth's right and left corner, in pixels of 48:
# medians over 1308 faces of the valid split on which the mesh found a face, both sides made symmetric.
TEMPLATE = np.array([[15.2, 18.9], [32.8, 18.9], [16.6, 36.3], [31.4, 36.3]])
PITCH_OF_THE_MESH = -8.6    # degrees: what the mesh gives for FER2013's median face, which is taken as looking straight on
DETECTED = 0.4              # least score of a detection; the mesh then has its own say
MOST_FACES = 4              # detections looked at in one frame, the largest first
MESH_SIDE = 256             # pixels of the crop that the mesh sees, face and surroundings
SURROUNDINGS = 2.0          # side of that crop in face sizes


@dataclass(frozen=True)
class FaceTrack:
    """The followed face, frame by frame; rows of frames with found = False hold zeros and mean nothing.

    found (N,) bool; boxes (N, 4) float32 x1 y1 x2 y2 in pixels; crops (N, 48, 48) uint8 grey, aligned;
    landmarks (N, K, 2) float32 pixels, in the order of LANDMARKS; pose (N, 3) float32 degrees: yaw (positive: turned to
    the picture's right), pitch (positive: up), roll (positive: clockwise); faces_seen: most faces in one frame;
    notes: sentences for the user.
    """

    found: np.ndarray
    boxes: np.ndarray
    crops: np.ndarray
    landmarks: np.ndarray
    pose: np.ndarray
    faces_seen: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class VisionTokens:
    """values (N, D_v) float32, columns named by VISION_NAMES; missing (N,) bool, True = no face (its values are 0);
    times (N, 2) float64, start and end in seconds; probabilities (N, 7) float32 in the order of EXPRESSIONS."""

    values: np.ndarray
    missing: np.ndarray
    times: np.ndarray
    probabilities: np.ndarray


def vision_names(config: ExpressionConfig = ExpressionConfig()) -> tuple[str, ...]:
    return tuple(f"face_{i}" for i in range(config.embedding)) + tuple(f"p_{name}" for name in EXPRESSIONS)


VISION_NAMES = vision_names()


@contextmanager
def muted():
    """mediapipe's C++ side writes start-up messages straight to file descriptor 2, whatever its log level is set to."""
    saved, void = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(void, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(void)


class FaceModels:
    """mediapipe's two detectors and its mesh. They keep no state from one picture to the next; one set a thread."""

    building = threading.Lock()

    def __init__(self):
        with self.building, muted():
            from mediapipe.python.solutions import face_detection, face_mesh    # slow to import, so only when needed

            self.detectors = [face_detection.FaceDetection(min_detection_confidence=DETECTED, model_selection=reach)
                              for reach in (0, 1)]
            self.mesh = face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False,
                                           min_detection_confidence=DETECTED)
            blank = np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8)
            for model in (*self.detectors, self.mesh):
                model.process(blank)
        self.met_a_face = False

    def faces(self, frame: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """frame (H, W, 3) uint8 -> the mesh (468, 3) and the detector's score of every face, largest first."""
        height, width = frame.shape[:2]
        side = max(height, width)
        # The detectors letterbox to a square anyway; doing it here spares a warning about every other shape.
        square = cv2.copyMakeBorder(frame, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT)
        for detector in self.detectors:
            found = [(face.location_data.relative_bounding_box, face.score[0]) for face in detector.process(square).detections or []]
            found = sorted(found, key=lambda item: -item[0].width)[:MOST_FACES]
            faces: list[tuple[np.ndarray, float]] = []
            for box, score in found:
                mesh = self.mesh_in(frame, np.array([box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height]) * side)
                # The mesh refuses what is no face; two boxes may also lead to the same one.
                if mesh is not None and all(overlap(bounds(mesh), bounds(other)) < 0.5 for other, _ in faces):
                    faces.append((mesh, score))
            if faces:
                return faces
        return []

    def mesh_in(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """The mesh (468, 3) of the face in `box`, in pixels of the frame, or None when the mesh sees none there."""
        centre, side = (box[:2] + box[2:4]) / 2, SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])
        if side < 1:
            return None
        scale, corner = MESH_SIDE / side, centre - side / 2
        inward = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        crop = cv2.warpAffine(frame, inward, (MESH_SIDE, MESH_SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.met_a_face:
            faces = self.mesh.process(crop).multi_face_landmarks
        else:                                                   # the first face brings the last of the messages
            with self.building, muted():
                faces = self.mesh.process(crop).multi_face_landmarks
            self.met_a_face = bool(faces)
        if not faces:
            return None
        points = np.array([[point.x, point.y, point.z] for point in faces[0].landmark]) * side
        points[:, :2] += corner
        # A neighbour's face inside the surroundings is not the one that is followed.
        return points if (abs(points[:, :2].mean(0) - centre) < side / SURROUNDINGS / 2).all() else None


def bounds(mesh: np.ndarray) -> np.ndarray:
    """mesh (468, 3) -> x1 y1 x2 y2, the tight box around it."""
    return np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)])


_per_thread = threading.local()


def models() -> FaceModels:
    if not hasattr(_per_thread, "models"):
        _per_thread.models = FaceModels()
    return _per_thread.models


@lru_cache(maxsize=1)
def workers() -> ThreadPoolExecutor:
    """Shared by all clips: each worker has its own models and looks at one picture at a time."""
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="faces")


def align(frame: np.ndarray, mesh: np.ndarray) -> np.ndarray:
    """frame (H, W, 3), mesh (468, 3) -> (48, 48) uint8 grey: turned, scaled and moved so that eyes and mouth fit TEMPLATE."""
    at = mesh[:, :2]
    eyes = [(at[LANDMARKS[f"{side}_eye_outer"]] + at[LANDMARKS[f"{side}_eye_inner"]]) / 2 for side in ("right", "left")]
    points = np.array([*eyes, at[LANDMARKS["mouth_right"]], at[LANDMARKS["mouth_left"]]])
    # Least squares over similarities, with points as complex numbers: w = a z + b.
    source, target = points @ (1, 1j), TEMPLATE @ (1, 1j)
    offset = source - source.mean()
    a = np.vdot(offset, target - target.mean()) / max(np.vdot(offset, offset).real, 1e-6)
    b = target.mean() - a * source.mean()
    # A large face is sampled finely and averaged down; sampling it at 48 pixels at once would alias.
    fine = int(np.clip(np.ceil(1 / max(abs(a), 1e-6)), 1, 8))
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]) * fine
    matrix[:, 2] += (fine - 1) / 2
    large = cv2.warpAffine(frame, matrix, (CROP * fine, CROP * fine), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(cv2.resize(large, (CROP, CROP), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def head_pose(mesh: np.ndarray) -> np.ndarray:
    """mesh (468, 3), depth away from the camera -> yaw, pitch, roll in degrees (signs as in FaceTrack)."""
    across = mesh[LANDMARKS["left_eye_outer"]] - mesh[LANDMARKS["right_eye_outer"]]
    down = mesh[LANDMARKS["chin"]] - mesh[LANDMARKS["forehead"]]
    x, y, z = -np.cross(across, down)                       # out of the face; z < 0 towards the camera
    yaw, pitch = np.arctan2(x, -z), np.arctan2(-y, np.hypot(x, z))
    roll = np.arctan2(across[1], across[0])
    return np.degrees([yaw, pitch, roll]) - (0, PITCH_OF_THE_MESH, 0)


def face_track(frames: np.ndarray, times: np.ndarray) -> FaceTrack:
    """frames (N, H, W, 3) uint8 RGB, times (N,) seconds -> the most prominent face, followed. N = 0 gives an empty track."""
    frames, times = np.asarray(frames), np.asarray(times, dtype=np.float64)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(times) != len(frames):
        raise InputError(f"Faces are looked for in (N, H, W, 3) uint8 pictures with one time each, not {frames.shape} "
                         f"{frames.dtype} with {len(times)} times; decode the clip with msademo.media.")
    count = len(frames)
    found, boxes = np.zeros(count, bool), np.zeros((count, 4), np.float32)
    crops, pose = np.zeros((count, CROP, CROP), np.uint8), np.zeros((count, 3), np.float32)
    landmarks = np.zeros((count, len(LANDMARKS), 2), np.float32)
    if count == 0:
        return FaceTrack(found, boxes, crops, landmarks, pose, 0, ())
    faces = list(workers().map(lambda frame: models().faces(frame), frames))
    detections = [np.array([[*bounds(mesh), score] for mesh, score in seen]).reshape(-1, 5) for seen in faces]
    followed = follow(detections, times, frames.shape[1:3])

    def look(index: int) -> np.ndarray | None:
        if followed.which[index] >= 0:
            return faces[index][followed.which[index]][0]
        # The detectors lost the person for a moment; the mesh often still sees them where they just were.
        box = followed.boxes[index]
        return None if np.isnan(box).any() else models().mesh_in(frames[index], box)

    for index, mesh in enumerate(workers().map(look, range(count))):
        if mesh is not None:
            found[index], boxes[index], pose[index] = True, bounds(mesh), head_pose(mesh)
            landmarks[index] = mesh[list(LANDMARKS.values()), :2]
            crops[index] = align(frames[index], mesh)
    return FaceTrack(found, boxes, crops, landmarks, pose, followed.faces_seen, track_notes(found, followed))


def track_notes(found: np.ndarray, followed: Followed) -> tuple[str, ...]:
    if not found.any():
        return ("No face was found in the picture, so vision is missing.",)
    notes = []
    if not found.all():
        notes.append(f"A face was found in {found.sum()} of {len(found)} frames; the others are missing.")
    if followed.faces_seen > 1:
        notes.append(f"Up to {followed.faces_seen} faces are in the picture; the most prominent one is followed.")
    if followed.people > 1:
        notes.append(f"The picture cuts between {followed.people} faces; each is followed while it is the one on show.")
    return tuple(notes)


def crop_tokens(crops: np.ndarray, net: ExpressionNet, size: int = 32) -> np.ndarray:
    """crops (N, 48, 48) uint8, framed as FER2013 -> (N, D_v) float32: the embedding, then the 7 class probabilities.

    Probabilities rather than their logarithms: they stay in [0, 1], so an unusual face cannot become an outlier.
    """
    crops = np.asarray(crops)
    if crops.ndim != 3 or crops.shape[1:] != (CROP, CROP) or crops.dtype != np.uint8:
        raise InputError(f"Face crops must be (N, {CROP}, {CROP}) uint8, not {crops.shape} {crops.dtype}; align them first.")
    device = next(net.parameters()).device
    parts = [torch.cat(net.predict(torch.from_numpy(crops[start:start + size, None]).to(device).float() / 255), -1)
             for start in range(0, len(crops), size)]
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, len(vision_names(net.config))), np.float32)


def token_times(times: np.ndarray) -> np.ndarray:
    """(N,) frame times -> (N, 2): each frame stands until the next one, the last for the usual step (0.2 s for a single frame)."""
    times = np.asarray(times, dtype=np.float64)
    step = np.median(np.diff(times)) if len(times) > 1 else 0.2
    return np.stack([times, np.append(times[1:], times[-1:] + step)], -1)


def vision_tokens(track: FaceTrack, net: ExpressionNet, times: np.ndarray) -> VisionTokens:
    """One token a frame: the followed face's embedding and class probabilities; frames without a face are missing."""
    if len(times) != len(track.found):
        raise InputError(f"The track has {len(track.found)} frames and {len(times)} times; give the times it was made with.")
    values = np.zeros((len(track.found), len(vision_names(net.config))), np.float32)
    values[track.found] = crop_tokens(track.crops[track.found], net)
    return VisionTokens(values, ~track.found, token_times(times), values[:, -len(EXPRESSIONS):].copy())

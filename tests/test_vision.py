"""Finding, following, aligning a face, and its tokens: on a cartoon that the detector takes for a face."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from msademo.backbones.expression import ExpressionConfig, ExpressionNet
from msademo.errors import InputError
from msademo.features.tracking import follow
from msademo.features.vision import LANDMARKS, VISION_NAMES, crop_tokens, face_track, token_times, vision_names, vision_tokens

SIZE = (240, 420)
GREY = 70
TINY = ExpressionConfig(widths=(4, 8), blocks=(1, 1), embedding=6)
CLIPS = Path("../shared/data/clips")


def portrait(side: int, turned: float = 0.0) -> np.ndarray:
    """A cartoon head (side, side, 3) uint8, `turned` degrees clockwise."""
    picture = np.full((480, 480, 3), GREY, np.float32)

    def oval(x, y, wide, high, colour, start=0, end=360, thick=-1):
        cv2.ellipse(picture, (240 + x, 240 + y), (wide, high), 0, start, end, colour, thick, cv2.LINE_AA)

    oval(0, -30, 150, 190, (50, 35, 30))
    oval(0, 150, 55, 80, (190, 140, 115))
    oval(0, 10, 118, 160, (225, 175, 150))
    for x in (-48, 48):
        oval(x, -18, 30, 20, (200, 150, 128))
        oval(x, -15, 24, 11, (245, 245, 245))
        oval(x, -15, 10, 10, (60, 40, 30))
        oval(x, -15, 25, 12, (70, 45, 40), 180, 360, 4)
        oval(x, -40, 32, 10, (60, 40, 35), 190, 350, 8)
    oval(0, 30, 14, 34, (212, 160, 135))
    oval(0, 52, 24, 12, (200, 145, 122))
    for x in (-11, 11):
        oval(x, 56, 6, 4, (120, 75, 65))
    oval(0, 90, 44, 24, (170, 70, 75), 0, 180)
    picture = cv2.GaussianBlur(picture, (0, 0), 4)
    matrix = cv2.getRotationMatrix2D((240, 240), -turned, 1)
    picture = cv2.warpAffine(picture, matrix, (480, 480), borderValue=(GREY,) * 3)
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)


def frame(*heads: tuple[int, int, int], turned: float = 0.0) -> np.ndarray:
    """A grey picture with a head of `side` pixels centred at (x, y), for each (side, x, y)."""
    picture = np.full((*SIZE, 3), GREY, np.uint8)
    for side, x, y in heads:
        picture[y - side // 2:y - side // 2 + side, x - side // 2:x - side // 2 + side] = portrait(side, turned)
    return picture


def track(*frames: np.ndarray):
    return face_track(np.stack(frames), np.arange(len(frames)) / 5)


def net() -> ExpressionNet:
    torch.manual_seed(0)
    return ExpressionNet(TINY).eval()


def faces(*boxes) -> np.ndarray:
    """Detections of one frame, from (x, y, side)."""
    return np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2, 0.9] for x, y, side in boxes]).reshape(-1, 5)


@pytest.mark.parametrize("side, x, y", [(200, 210, 120), (120, 90, 100), (60, 300, 150)])
def test_a_face_is_found_where_it_is(side, x, y):
    seen = track(frame((side, x, y)))
    x1, y1, x2, y2 = seen.boxes[0]
    assert seen.found.tolist() == [True] and seen.faces_seen == 1 and seen.notes == ()
    assert abs((x1 + x2) / 2 - x) < 0.06 * side and 0.35 * side < x2 - x1 < 0.65 * side and y1 < y < y2
    points = dict(zip(LANDMARKS, seen.landmarks[0]))
    assert points["right_eye_outer"][0] < points["left_eye_outer"][0] and points["nose_tip"][1] < points["lip_lower_outer"][1]
    assert abs(points["nose_tip"][0] - x) < 0.05 * side


def test_crops_look_alike_whatever_size_place_and_turn():
    crops = track(frame((200, 210, 120)), frame((110, 90, 100)), frame((170, 300, 120), turned=15)).crops.astype(float)
    unaligned = cv2.resize(cv2.cvtColor(portrait(200, 15), cv2.COLOR_RGB2GRAY), (48, 48), interpolation=cv2.INTER_AREA)
    for other in crops[1:]:
        assert abs(crops[0] - other).mean() < 10 < abs(crops[0] - unaligned).mean()


def test_roll_is_clockwise_and_a_straight_face_looks_straight():
    straight, clockwise = track(frame((200, 210, 120)), frame((200, 210, 120), turned=20)).pose
    assert abs(straight[[0, 2]]).max() < 5 and clockwise[2] == pytest.approx(20, abs=5)


def test_frames_without_a_face_are_missing():
    seen = track(frame((150, 210, 120)), frame(), frame())
    tokens = vision_tokens(seen, net(), np.arange(3) / 5)
    assert seen.found.tolist() == [True, False, False] and "1 of 3" in seen.notes[0]
    assert tokens.missing.tolist() == [False, True, True]
    assert (tokens.values[1:] == 0).all() and tokens.probabilities[0].sum() == pytest.approx(1, abs=1e-5)


def test_no_face_and_no_frames():
    nobody = track(frame())
    assert not nobody.found.any() and "No face" in nobody.notes[0] and nobody.faces_seen == 0
    nothing = face_track(np.zeros((0, *SIZE, 3), np.uint8), np.zeros(0))
    tokens = vision_tokens(nothing, net(), np.zeros(0))
    assert tokens.values.shape == (0, TINY.embedding + 7) and tokens.times.shape == (0, 2) and nothing.notes == ()


def test_the_same_person_is_followed_among_several():
    left, both = frame((130, 110, 120)), frame((130, 110, 120), (170, 310, 120))
    seen = track(left, left, left, both, left)
    assert seen.found.all() and seen.faces_seen == 2 and any("2 faces" in note for note in seen.notes)
    assert (seen.boxes[:, 2] < 210).all()
    largest = track(both, both)
    assert (largest.boxes[:, 0] > 210).all()


def test_threads_do_not_disturb_each_other():
    clips = [[frame((150, 120 + 40 * k, 110)), frame((100, 300 - 40 * k, 130))] for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: track(*clip), clips))
    for clip, seen in zip(clips, together):
        alone = track(*clip)
        assert np.array_equal(seen.crops, alone.crops) and np.array_equal(seen.landmarks, alone.landmarks)


def test_tokens_are_those_of_the_crops():
    seen = track(frame((150, 210, 120)), frame(), frame((120, 100, 120)))
    tokens = vision_tokens(seen, net(), np.array([0.0, 0.2, 0.5]))
    np.testing.assert_allclose(tokens.values[seen.found], crop_tokens(seen.crops[seen.found], net()), atol=1e-6)
    np.testing.assert_allclose(tokens.times, [[0, 0.2], [0.2, 0.5], [0.5, 0.75]])
    assert tokens.values.shape[1] == len(vision_names(TINY)) and np.array_equal(tokens.probabilities, tokens.values[:, -7:])
    assert len(VISION_NAMES) == 55 and len(set(VISION_NAMES)) == 55


def test_batching_crops_changes_nothing():
    crops = np.random.default_rng(0).integers(0, 256, (10, 48, 48), dtype=np.uint8)
    np.testing.assert_allclose(crop_tokens(crops, net(), size=3), crop_tokens(crops, net()), atol=1e-5)


def test_one_frame_lasts_a_fifth_of_a_second():
    np.testing.assert_allclose(token_times(np.array([1.0])), [[1.0, 1.2]])


@pytest.mark.parametrize("frames, times", [(np.zeros((2, 9, 9), np.uint8), np.zeros(2)), (np.zeros((2, 9, 9, 3)), np.zeros(2)),
                                           (np.zeros((2, 9, 9, 3), np.uint8), np.zeros(3))])
def test_other_arrays_are_refused(frames, times):
    with pytest.raises(InputError):
        face_track(frames, times)


def test_other_crops_are_refused():
    with pytest.raises(InputError):
        crop_tokens(np.zeros((2, 40, 40), np.uint8), net())


def test_following_bridges_gaps_but_not_with_strangers():
    # The main face is lost in frame 2 while a stranger stands at the side.
    scene = [faces((100, 100, 60)), faces((102, 100, 60)), faces((300, 100, 40)), faces((104, 100, 60))]
    followed = follow(scene, np.arange(4) / 5, SIZE)
    assert followed.which.tolist() == [0, 0, -1, 0] and followed.people == 1 and followed.faces_seen == 1
    assert followed.boxes[2, 0] == pytest.approx(72) or followed.boxes[2, 0] == pytest.approx(74)


def test_following_changes_person_at_a_cut():
    scene = [faces((100, 100, 60))] * 3 + [faces()] + [faces((300, 100, 50))] * 2
    followed = follow(scene, np.arange(6) / 5, SIZE)
    assert followed.which.tolist() == [0, 0, 0, -1, 0, 0] and followed.people == 2 and np.isnan(followed.boxes[3]).all()


def test_following_keeps_two_walking_people_apart():
    scene = [faces((100 + 10 * k, 100, 70), (320 - 10 * k, 100, 60))[:: 1 if k % 2 else -1] for k in range(6)]
    followed = follow(scene, np.arange(6) / 5, SIZE)
    assert np.allclose((followed.boxes[:, 0] + followed.boxes[:, 2]) / 2, 100 + 10 * np.arange(6)) and followed.faces_seen == 2


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the clips of ../shared")
def test_faces_of_real_clips_are_found():
    for file in sorted(CLIPS.glob("*.mp4")):
        video = cv2.VideoCapture(str(file))
        step = round(video.get(cv2.CAP_PROP_FPS))
        pictures = []
        while (read := video.read())[0]:
            pictures.append(read[1])
        chosen = [cv2.resize(picture[:, :, ::-1], (640, 360), interpolation=cv2.INTER_AREA) for picture in pictures[::step]]
        assert face_track(np.stack(chosen), np.arange(len(chosen))).found.mean() >= 0.8, file.name

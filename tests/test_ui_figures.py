"""Figures and sentences: valid for plotly, the numbers in the sentence, nothing a person typed becomes markup."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from tests.ui_support import FakeAnalyzer, fake_result, opened_from, write_clip

from msademo.media import Clip
from msademo.results import Curve, Prediction, PromptAttention
from msademo.transcript import Word
from msademo.ui import figures, pictures
from msademo.ui.clip_panels import PANELS, Controls, update
from msademo.ui.scales import scale, scales

go = pytest.importorskip("plotly.graph_objects", reason="plotly checks the figures")
NASTY = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} & 😀"


def clip(words=6, frames=8, seconds=4.0, audio=True, texts=None):
    texts = texts or [f"word{i}" for i in range(words)]
    spoken = tuple(Word(t, seconds * i / max(len(texts), 1), seconds * (i + 1) / max(len(texts), 1)) for i, t in enumerate(texts))
    rng = np.random.default_rng(0)
    pictures_ = rng.integers(0, 255, (frames, 60, 80, 3)).astype(np.uint8) if frames else np.zeros((0, 0, 0, 3), np.uint8)
    sound = rng.standard_normal(int(22050 * seconds)).astype(np.float32) / 4 if audio else None
    return opened_from(Clip(pictures_, np.linspace(0, seconds, frames, endpoint=False), sound, spoken, "given", seconds, ()))


@pytest.fixture
def curve():
    return Curve(np.arange(10) / 10, np.linspace(2, 0, 10) + np.array([[-0.1], [0.0], [0.1]]), 0.25, "random")


def test_curve_is_valid_and_says_its_numbers(curve):
    figure = figures.curve_figure(curve, 0.4, 1.1)
    go.Figure({"data": figure["data"], "layout": figure["layout"]})         # raises on what plotly does not know
    band, mean, constant, now = figure["data"]
    assert mean["y"] == pytest.approx(np.linspace(2, 0, 10), abs=1e-3) and constant["y"] == [0.25, 0.25]
    assert max(band["y"]) == pytest.approx(2.1) and (now["x"], now["y"]) == ([0.4], [1.1])
    sentence = figures.curve_sentence(curve, 0.4, 1.1)
    for number in ("+2.00", "+0.00", "+0.25", "0.20", "40%", "+1.10", "3 masks"):
        assert number in sentence


def test_no_marker_where_the_modalities_differ(curve):
    assert len(figures.curve_figure(curve, None, 1.1)["data"]) == 3
    assert "not on this curve" in figures.curve_sentence(curve, None, 1.1)


def test_attention_keeps_every_column_and_no_label_becomes_markup():
    weights = np.zeros((8, 4))
    weights[:, 3], weights[:, 0] = 0.7, 0.3
    attention = PromptAttention(weights[:, :2], weights, ("the", "<b>bad</b>", "the", "the"))
    figure = figures.attention_figure(attention, "audio")
    go.Figure({"data": figure["data"], "layout": figure["layout"]})
    columns = figure["data"][1]["x"]
    assert len(set(columns)) == 4 and not any("<" in label for label in columns)
    assert figure["data"][1]["z"][0] == [0.3, 0, 0, 0.7]
    sentence = figures.attention_sentence(attention, "audio", 0.61)
    assert "“the” (70.0%)" in sentence and "70% of it goes to the words" in sentence and "0.61" in sentence


def test_attention_with_nothing_left_says_so():
    empty = PromptAttention(np.zeros((8, 3)), np.zeros((8, 3)), ("a", "b", "c"))
    assert "no token is left" in figures.attention_sentence(empty, "text", 0.5)
    json.loads(figures.plot(figures.attention_figure(empty, "text")).plot)


@pytest.mark.parametrize("score, complete, expected", [(1.0, 1.001, "scores the same"), (0.5, -1.5, "+2.00 and turned its sign"), (0.5, 1.5, "-1.00.")])
def test_change(score, complete, expected):
    assert expected in figures.change_sentence(score, complete)


def test_scale_places_dot_and_ring():
    shown = scale(Prediction("pglh", 1.5, -3.0), (-3.0, 3.0))
    assert 'msa-dot" style="left:75.0%' in shown and 'msa-ring" style="left:0.0%' in shown and "+1.50" in shown and "positive" in shown
    assert 'msa-dot" style="left:100.0%' in scale(Prediction("pglh", 4.2, 0), (-3.0, 3.0))        # beyond the scale stays on the page


def test_every_model_has_its_scale_its_name_and_its_own_change():
    result = fake_result(clip(), {"text": 0.5})
    cards = scales(result).split("<article")[1:]
    assert [re.search('data-model="([a-z-]+)"', card)[1] for card in cards] == ["pglh", "pgmf-student", "pgmf-teacher"]
    for card, prediction in zip(cards, result.predictions.values()):
        assert f"<b>{prediction.score:+.2f}</b>" in card and f"Complete clip: {prediction.complete:+.2f}" in card and "moved by -" in card
    assert "is told nothing now" in cards[2] and "about the clip in words" in scales(fake_result(clip(), guidance=clip().guidance))


def test_words_on_one_lane_never_overlap():
    words = [Word("w" * (1 + i % 9), i * 0.21, i * 0.21 + 0.2) for i in range(40)]
    lanes = pictures.lanes(words, 8.4, 40)
    for lane in set(lanes):
        ends = -1.0
        for word in (w for w, chosen in zip(words, lanes) if chosen == lane):
            start = min(word.start / 8.4 * 40, 40 - len(word.text) - 1.5)
            assert start >= ends
            ends = start + len(word.text)


def test_strip_strikes_exactly_the_missing_words_and_counts_them():
    opened = clip(words=20)
    result = fake_result(opened, {"text": 0.5}, seed=3)
    gone = int(result.modalities["text"].missing.sum())
    shown = pictures.strip(opened, result)
    assert 0 < gone < 20 and shown.count("<s ") == gone and f"{gone} of 20 words struck out" in shown


def test_strip_tells_taken_faces_from_never_found_ones():
    opened = clip(frames=10)
    untouched, all_gone = pictures.strip(opened, fake_result(opened)), pictures.strip(opened, fake_result(opened, {"vision": 1.0}))
    assert "msa-gone" not in untouched and untouched.count('class="msa-none"') == 2 and "20% of the frames no face" in untouched
    assert all_gone.count('class="msa-gone"') == 8 and "100% of the face greyed out" in all_gone


@pytest.mark.parametrize("lacks", [{"words": 0}, {"frames": 0}, {"audio": False}, {"frames": 0, "audio": False}, {"seconds": 0.0, "frames": 0, "audio": False}])
def test_a_clip_that_lacks_something_still_fills_every_panel(lacks):
    panels, result = update(FakeAnalyzer(), clip(**lacks), Controls(dict.fromkeys(("text", "audio", "vision"), 0.5)))
    assert len(panels.values()) == PANELS and result.score == pytest.approx(1.2)
    assert ("no words" in panels.strip) == ("words" in lacks)


def test_spans_join_neighbours():
    times = np.array([(0, 1), (1, 2), (2, 3), (3, 4)], float)
    assert pictures.spans(times, np.array([True, True, False, True])) == [(0, 2), (3, 4)]


def test_nothing_typed_becomes_markup():
    opened = clip(texts=NASTY.split(" "))
    panels, _ = update(FakeAnalyzer(), opened, Controls())
    shown = [panels.strip, *panels.recovery, *panels.attention_text, pictures.word_times(opened.clip.words), pictures.notes_list((NASTY,))]
    assert not any("<img src=x" in text for text in shown) and "&lt;img" in panels.strip


def test_maps_show_the_same_scale_and_the_errors():
    opened = clip()
    result = fake_result(opened, {"audio": 0.5})
    recovery = replace(result.recovery["audio"], error=0.5, mean_error=1.0)
    shown = pictures.recovery_maps(recovery, "audio", 0.4)
    assert shown.count("<img") == 3 and "0.50" in shown and "1.00" in shown and "50% better" in shown and "Beta is 0.40" in shown
    assert "50% worse" in pictures.recovery_maps(replace(recovery, error=1.5), "audio", 0.4)
    assert "no error to measure" in pictures.recovery_maps(fake_result(opened).recovery["audio"], "audio", 0.4)


def test_heat_map_pixels():
    import base64

    import cv2
    values = np.array([[-2.0, 2.0], [np.nan, 0.0]])
    image = cv2.imdecode(np.frombuffer(base64.b64decode(pictures.heat_png(values, 2).split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (2, 2, 4) and image[0, 1, 3] == 0 and image[0, 0, 3] == 255
    assert image[0, 0, 0] > image[0, 0, 1] and image[1, 0, 1] > image[1, 0, 0]      # low is violet, high is yellow (BGR)


def test_varying_picks_dimensions_that_vary():
    features = np.zeros((10, 50))
    features[:, 7], features[:, 41] = np.arange(10), -np.arange(10)
    assert list(pictures.varying(features, 2)) == [7, 41]


def test_controls_from_widgets():
    chosen = Controls.of(0.5, 0.5, 0.5, "span", "alike", "noise", "alike", 3)
    assert chosen.kinds == {"text": "span", "audio": "noise", "vision": "span"} and chosen.shared == 0.5
    assert chosen.curve_kind == "random" and not chosen.on_curve
    assert Controls.of(0.5, None, 0.5, "span", "alike", "alike", "alike", 3).shared is None


def test_the_clip_writer_is_a_real_clip(tmp_path):
    opened = FakeAnalyzer().open(write_clip(tmp_path / "a.mp4", 2.0), "some words")
    assert len(opened.clip.frames) >= 9 and opened.clip.audio is not None and opened.clip.duration == pytest.approx(2.0, abs=0.2)


def test_what_voice_and_face_show_is_told_by_whom():
    opened = clip()
    result = fake_result(opened)
    views = dict(result.modalities)
    views["audio"] = replace(views["audio"], shows={"happy": 0.6, "angry": 0.25, "sad": 0.15})
    views["vision"] = replace(views["vision"], shows={"fear": 0.9, "happy": 0.1})
    told = pictures.strip_sentence(opened, replace(result, modalities=views))
    assert told.endswith("By what is left, the voice network hears happy (60%) or angry (25%) and the expression network sees afraid (90%).")
    assert "By what is left" not in pictures.strip_sentence(opened, result)

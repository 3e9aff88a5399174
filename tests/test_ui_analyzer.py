"""The tab's `update` on the real Analyzer with untrained models: every kind of corruption, clips that lack something, real files."""

from dataclasses import fields

import pytest
from tests.ui_support import write_clip

from msademo.analyzer import Analyzer
from msademo.corruption import MODALITIES
from msademo.options import SIGNAL_KINDS
from msademo.ui.clip_panels import PANELS, Controls, open_clip, update
from msademo.ui.examples import examples
from msademo.ui.figures import kind_name


@pytest.fixture(scope="module")
def analyzer(checkpoints):
    return Analyzer(checkpoints)


@pytest.fixture(scope="module")
def opened(analyzer, tmp_path_factory):
    shipped = examples()
    path = shipped[0]["file"] if shipped else write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4")
    return open_clip(analyzer, None, path, None, "I <b>really</b> enjoyed this movie", None)


def controls(ratio, **kinds):
    return Controls(dict.fromkeys(MODALITIES, ratio), {m: kinds.get(m, "random") for m in MODALITIES})


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_all_panels_at_any_ratio(analyzer, opened, ratio):
    curve = analyzer.curve(opened.clip, masks=2)
    panels, result = update(analyzer, opened.clip, controls(ratio), curve)
    blank = [item.name for item in fields(panels) if getattr(panels, item.name) in (None, "")]
    assert len(panels.values()) == PANELS and blank == (["map", "map_numbers"] if ratio == 1 else [])
    assert f"{result.score:+.2f}" in panels.score and f"{ratio:.0%} missing, {result.score:+.2f}" in panels.curve_text
    assert panels.strip.count("<s ") == result.modalities["text"].missing.sum()
    assert ("no error to measure" in panels.recovery[1]) == (ratio == 0)
    assert not any("<b>really" in text for text in (panels.strip, *panels.attention_text))


@pytest.mark.parametrize("modality, kind", [(m, kind) for m, kinds in SIGNAL_KINDS.items() for kind in kinds])
def test_signal_kinds_are_named_under_the_strip(analyzer, opened, modality, kind):
    panels, _ = update(analyzer, opened.clip, controls(0.6, **{modality: kind}), analyzer.curve(opened.clip, masks=1))
    assert "damaged signals" in panels.curve_text and f"{kind_name(kind)} at 60%" in panels.strip


def test_words_alone_and_sound_alone(analyzer, tmp_path):
    words = open_clip(analyzer, None, None, None, "just words", None)
    panels, _ = update(analyzer, words.clip, controls(0.0))
    assert "no voice" in panels.strip and "no face" in panels.recovery[2] and panels.attention[1] is None
    sound = open_clip(analyzer, None, None, write_clip(tmp_path / "talk.m4a", picture=False), "just words", None)
    panels, _ = update(analyzer, sound.clip, controls(0.5))
    assert "no face" in panels.strip and "msa-wave" in panels.strip


def test_a_new_transcript_reuses_sound_and_picture(analyzer, opened):
    assert open_clip(analyzer, opened, opened.path, None, opened.shown, None) is opened
    changed = open_clip(analyzer, opened, opened.path, None, "terrible acting", None)
    assert changed.clip.features.audio is opened.clip.features.audio and changed.clip.clip.words[0].text == "terrible"

"""The Analyzer on a real clip with untrained checkpoints: what is taken away, what stays, what is refused, what comes out."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from msademo import Analyzer
from msademo import analyzer as module
from msademo import shelf
from msademo.corruption import KINDS, MODALITIES
from msademo.errors import InputError
from msademo.options import SIGNAL_KINDS, kinds_of, ratios_of
from tests.conftest import WORDS
from tests.mediafiles import write_media

SRT = "1\n00:00:01,000 --> 00:00:02,500\nwhat a film\n\n2\n00:00:03,000 --> 00:00:04,000\nnever again\n"


def gone(result) -> dict[str, np.ndarray]:
    return {m: view.missing for m, view in result.modalities.items()}


def test_the_clip_is_taken_apart(opened):
    assert opened.features.tokens.words == len(opened.clip.words) == len(WORDS.split())
    assert opened.features.audio.present and opened.features.vision.present
    assert len(opened.features.vision.values) == len(opened.clip.frames) == len(opened.faces.found)
    assert np.array_equal(opened.features.vision.missing, ~opened.faces.found)
    assert opened.clean_text.shape == (len(opened.features.tokens), 384)
    assert opened.clip.transcript_source == "given" and opened.clip.duration > 7


def test_nothing_taken_away_is_the_complete_clip(analyzer, opened):
    for missing in (None, 0, 0.0, {}, {"text": 0}, dict.fromkeys(MODALITIES, 0.0)):
        result = analyzer.analyze(opened, missing)
        assert result.score == pytest.approx(opened.complete["pglh"], abs=1e-5)
        assert result.predictions["pglh"].change == pytest.approx(0, abs=1e-5)
        assert not gone(result)["text"].any() and not gone(result)["audio"].any()
        assert np.array_equal(gone(result)["vision"], opened.features.vision.missing)
        assert all(recovery.error is None for recovery in result.recovery.values())


@pytest.mark.parametrize("kind", KINDS)
def test_sliding_up_only_takes_more_away(analyzer, opened, kind):
    results = [analyzer.analyze(opened, ratio, kind, seed=3) for ratio in (0.0, 0.3, 0.6, 1.0)]
    for fewer, more in zip(results, results[1:]):
        for m in MODALITIES:
            assert not (gone(fewer)[m] & ~gone(more)[m]).any() and gone(fewer)[m].sum() < gone(more)[m].sum()
    assert all(mask.all() for mask in gone(results[-1]).values())
    assert len({result.score for result in results}) == 4


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_slider_moves_one_modality(analyzer, opened, modality):
    nothing, some = analyzer.analyze(opened), analyzer.analyze(opened, {modality: 0.6})
    for m in MODALITIES:
        assert np.array_equal(gone(nothing)[m], gone(some)[m]) == (m != modality)
        assert some.modalities[m].ratio == (0.6 if m == modality else 0)
    assert abs(some.score - nothing.score) > 1e-6 and some.predictions["pglh"].complete == nothing.predictions["pglh"].complete
    recovery = some.recovery[modality]
    assert recovery.error > 0 and recovery.mean_error > 0
    assert np.isnan(recovery.corrupted[recovery.missing]).all() and np.isfinite(recovery.corrupted[~recovery.missing]).all()
    judged = recovery.missing & ~np.isnan(recovery.original).any(1)
    assert recovery.error == pytest.approx(np.mean((recovery.recovered[judged] - recovery.original[judged]) ** 2), rel=1e-4)
    assert recovery.mean_error == pytest.approx(np.mean(recovery.original[judged] ** 2), rel=1e-4)


def test_the_seed_decides(analyzer, opened):
    first, again, other = (analyzer.analyze(opened, 0.5, seed=seed) for seed in (7, 7, 8))
    assert first.score == again.score and first.to_dict() == again.to_dict()
    assert all(np.array_equal(gone(first)[m], gone(again)[m]) for m in MODALITIES)
    assert any(not np.array_equal(gone(first)[m], gone(other)[m]) for m in MODALITIES) and first.score != other.score


def test_analyses_leave_the_opened_clip_alone(analyzer, opened):
    before = [part.copy() for part in (opened.clean_text.numpy(), opened.features.audio.values, opened.features.vision.values)]
    for kind in ("random", "noise", "asr_errors", "deletion"):
        analyzer.analyze(opened, 0.8, kind)
    for old, new in zip(before, (opened.clean_text.numpy(), opened.features.audio.values, opened.features.vision.values)):
        assert np.array_equal(old, new)


@pytest.mark.parametrize("kind", [name for m in MODALITIES for name in SIGNAL_KINDS[m]])
def test_signal_kinds(analyzer, opened, kind):
    modality = next(m for m in MODALITIES if kind in SIGNAL_KINDS[m])
    untouched, worst = analyzer.analyze(opened, {modality: 0.0}, kind), analyzer.analyze(opened, {modality: 1.0}, kind)
    assert untouched.modalities[modality].kind == kind and all(untouched.modalities[m].kind == "random" for m in MODALITIES if m != modality)
    assert untouched.score == pytest.approx(opened.complete["pglh"], abs=1e-5)
    assert abs(worst.score - untouched.score) > 1e-6 and np.isfinite(worst.score)
    for m in MODALITIES:
        if m != modality:
            assert np.array_equal(gone(worst)[m], gone(untouched)[m])
    json.dumps(worst.to_dict(), allow_nan=False)
    assert analyzer.analyze(opened, {modality: 1.0}, kind).score == worst.score


def test_degraded_signals_are_remembered_and_not_without_end(analyzer, opened, monkeypatch):
    opened.degraded.clear()
    heard = []
    monkeypatch.setattr(module, "voice_tokens", lambda *given, real=module.voice_tokens: heard.append(1) or real(*given))
    for _ in range(2):
        analyzer.analyze(opened, {"audio": 0.5}, "clipping")
    assert len(heard) == 1
    for severity in np.linspace(0.1, 0.9, module.KEPT_DEGRADED + 2):
        analyzer.analyze(opened, {"audio": float(severity)}, "clipping")
    assert len(opened.degraded) == module.KEPT_DEGRADED


def test_misheard_words_stand_in_the_result(analyzer, opened):
    result = analyzer.analyze(opened, {"text": 1.0}, "asr_errors")
    spoken = [word.text for word in result.words]
    assert spoken != [word.text for word in opened.clip.words]
    assert len(gone(result)["text"]) == len(spoken) == len(result.to_dict()["words"]) and not gone(result)["text"].any()
    deleted = analyzer.analyze(opened, {"text": 0.5}, "deletion")
    assert deleted.words == opened.clip.words and gone(deleted)["text"].any()


def test_attention_and_times_line_up(analyzer, opened):
    result = analyzer.analyze(opened, 0.4)
    tokens = len(opened.features.tokens)
    for m, attention in result.attention.items():
        length = tokens if m == "text" else opened.features.units(m)
        assert attention.own.shape[1] == length and attention.language.shape[1] == len(attention.labels) == length + (tokens if m != "text" else 0)
        assert (attention.own[:, result.recovery[m].missing] == 0).all()
        recovery = result.recovery[m]
        assert recovery.original.shape == recovery.recovered.shape == recovery.corrupted.shape == (length, len(recovery.names))
        assert recovery.times.shape == (length, 2) and (np.diff(recovery.times, axis=1) >= 0).all()
    assert result.attention["text"].labels[0] == "[CLS]" and result.attention["text"].labels[-1] == "[SEP]"
    assert set(result.alpha) == set(MODALITIES) and result.beta == {"audio": 0.5, "vision": 0.5}


def test_what_is_left_of_voice_and_face_shows_something(analyzer, opened):
    whole, less, none = (analyzer.analyze(opened, {"audio": ratio, "vision": ratio}).modalities for ratio in (0, 0.7, 1))
    for m in ("audio", "vision"):
        assert sum(whole[m].shows.values()) == pytest.approx(1, abs=1e-3) and whole[m].shows.keys() == less[m].shows.keys() and whole[m].shows != less[m].shows
        assert none[m].shows == {}
    assert whole["text"].shows == {}


def test_the_result_is_json(analyzer, opened):
    result = analyzer.analyze(opened, {"text": 0.5, "vision": 1.0}, {"vision": "span"})
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["score"] == pytest.approx(result.score, abs=1e-4) and told["label"] == result.label
    assert told["modalities"]["vision"] == {"ratio": 1.0, "kind": "span", "present": True, "units": len(opened.clip.frames), "missing": len(opened.clip.frames), "shows": {}}
    assert sum(word["missing"] for word in told["words"]) == told["modalities"]["text"]["missing"] > 0
    assert told["scale"] == [-3.0, 3.0] and told["seed"] == 0 and told["provenance"]["data"].startswith("none")
    assert told["change"] == pytest.approx(told["score"] - told["complete_score"], abs=2e-4)


def test_other_words_for_the_same_clip(analyzer, opened, monkeypatch):
    for heavy in ("face_track", "voice_tokens", "load_clip"):
        monkeypatch.setattr(module, heavy, lambda *args, **kwargs: pytest.fail("sound and picture were looked at again"))
    other = analyzer.with_transcript(opened, "a dull and boring film")
    assert [word.text for word in other.clip.words] == "a dull and boring film".split()
    assert other.features.audio is opened.features.audio and other.features.vision is opened.features.vision
    assert other.complete != opened.complete
    same = analyzer.with_transcript(other, WORDS)
    assert same.complete == opened.complete and same.notes == opened.notes
    timed = analyzer.with_transcript(opened, SRT)
    assert timed.clip.transcript_source == "subtitles" and timed.clip.words[0].start == 1.0 and len(timed.clip.words) == 5
    silent = analyzer.with_transcript(opened, "")
    assert silent.features.tokens.words == 0 and np.isfinite(analyzer.analyze(silent, 0.5).score)


def test_the_curve(analyzer, opened):
    curve = analyzer.curve(opened, seed=2, masks=3)
    assert curve.rates.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] and curve.scores.shape == (3, 10)
    assert curve.scores[:, 0] == pytest.approx([opened.complete["pglh"]] * 3, abs=1e-5) and curve.constant == 0.2
    assert np.ptp(curve.scores[:, 5]) > 0
    assert curve.scores[0, 5] == pytest.approx(analyzer.analyze(opened, 0.5, seed=2).score, abs=1e-5)      # the slider's own mask
    assert np.array_equal(curve.scores, analyzer.curve(opened, seed=2, masks=3).scores)
    json.dumps(curve.to_dict(), allow_nan=False)


def test_what_a_curve_cannot_be_drawn_for(analyzer, opened):
    for kind in ("noise", "nonsense", {"text": "random"}):
        with pytest.raises(InputError, match="random, span"):
            analyzer.curve(opened, kind)
    for masks in (0, -1, 1.5, "many", None):
        with pytest.raises(InputError, match="masks"):
            analyzer.curve(opened, masks=masks)


def test_kinds():
    assert kinds_of("span") == dict.fromkeys(MODALITIES, "span")
    assert kinds_of("noise+blur") == {"text": "random", "audio": "noise", "vision": "blur"}
    assert kinds_of({"text": "asr_errors", "vision": "span"}) == {"text": "asr_errors", "audio": "random", "vision": "span"}


@pytest.mark.parametrize("kind", ["", "nonsense", "noise+", "noise+nonsense", "noise+clipping", "random+noise", {"text": "noise"}, {"audio": "blur"},
                                  {"smell": "random"}, {3: "random", "x": "span"}, None, 3, ["noise"], {"text": None}, {"text": ["span"]}])
def test_kinds_that_there_are_not(kind):
    with pytest.raises(InputError) as refusal:
        kinds_of(kind)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")


def test_two_kinds_for_one_modality_are_not_silently_one():
    with pytest.raises(InputError, match="'noise' and 'clipping'.*choose one"):
        kinds_of("noise+clipping")
    with pytest.raises(InputError, match="alone"):
        kinds_of("noise+span")


def test_ratios():
    assert ratios_of(None) == ratios_of({}) == dict.fromkeys(MODALITIES, 0.0)
    assert ratios_of(0.5) == dict.fromkeys(MODALITIES, 0.5)
    assert ratios_of({"audio": 1}) == {"text": 0.0, "audio": 1.0, "vision": 0.0}


@pytest.mark.parametrize("ratio", [float("nan"), -0.1, 1.1, "x", [], [0.5], {"smell": 0.5}, {3: 0.1, "x": 0.2}, {"text": None}, {"audio": float("nan")}, {"vision": "high"}])
def test_ratios_that_there_are_not(ratio):
    with pytest.raises(InputError) as refusal:
        ratios_of(ratio)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")


@pytest.mark.parametrize("wrong", [{"missing": 2}, {"kind": "nonsense"}, {"seed": -1}, {"seed": 1.5}])
def test_a_wrong_wish_is_refused_before_the_file_is_read(analyzer, wrong):
    with pytest.raises(InputError) as refusal:
        analyzer.clip("/nowhere/none.mp4", "words", **wrong)
    assert "none.mp4" not in str(refusal.value)


def test_sound_without_a_picture(analyzer, tmp_path):
    opened = analyzer.open(write_media(tmp_path / "voice.wav"), "so it goes")
    assert opened.faces is None and not opened.features.vision.present and opened.features.audio.present
    result = analyzer.analyze(opened, 0.5)
    assert not result.modalities["vision"].present and "vision" not in result.recovery and "vision" not in result.attention
    assert np.isfinite(result.score) and abs(analyzer.analyze(opened, {"vision": 1.0}).score - opened.complete["pglh"]) < 1e-5
    assert np.isfinite(analyzer.analyze(opened, 0.7, "noise+blur").score)
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_picture_without_sound_and_without_a_face(analyzer, tmp_path):
    opened = analyzer.open(write_media(tmp_path / "mute.mp4", sound=None), "so it goes")
    assert opened.clip.audio is None and not opened.features.audio.present and not opened.features.vision.present
    assert len(opened.features.vision.values) == len(opened.clip.frames) > 0
    result = analyzer.analyze(opened, {"text": 0.5, "vision": 0.9}, "noise+blur")
    assert not result.modalities["audio"].present and not result.modalities["vision"].present and result.modalities["vision"].missing.all()
    assert np.isfinite(result.score) and result.recovery["vision"].error is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_silent_muted_faceless_clip_has_nothing_to_analyse(analyzer, tmp_path):
    with pytest.raises(InputError, match="nothing to analyse"):
        analyzer.open(write_media(tmp_path / "mute.mp4", sound=None), "")


def test_a_transcript_alone(analyzer):
    opened = analyzer.open(None, "a truly wonderful evening")
    assert opened.clip.duration == 0 and [opened.features.units(m) for m in MODALITIES] == [4, 0, 0]
    result = analyzer.analyze(opened, 0.5)
    assert set(result.recovery) == set(result.attention) == {"text"} and np.isfinite(result.score)
    assert analyzer.analyze(opened, 1.0).modalities["text"].missing.all()
    json.dumps(analyzer.analyze(opened, 0.7, "asr_errors+noise+blur").to_dict(), allow_nan=False)
    assert analyzer.curve(opened, masks=1).scores.shape == (1, 10)
    for nothing in ("", "  \n"):
        with pytest.raises(InputError):
            analyzer.open(None, nothing)


def test_progress_is_told(analyzer, tmp_path):
    told = []
    analyzer.open(write_media(tmp_path / "voice.wav"), "so it goes", say=lambda what, share: told.append((what, share)))
    assert len(told) >= 3 and all(0 <= share <= 1 for _, share in told) and told == sorted(told, key=lambda t: t[1])


def test_models_load_once_in_any_thread(checkpoints, monkeypatch):
    loads = []
    monkeypatch.setattr(shelf, "load_text_encoder", lambda path, real=shelf.load_text_encoder: loads.append(path) or real(path))
    analyzer, seen = Analyzer(checkpoints), []
    assert not loads                                                                # making one is cheap
    threads = [threading.Thread(target=lambda: seen.append(analyzer.warm())) for _ in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert len(loads) == 1 and len(seen) == 4 and all(models is seen[0] for models in seen)


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no checkpoint") as refusal:
        Analyzer(tmp_path).clip(None, "some words")
    assert "\n" not in str(refusal.value)

"""From features and masks to a batch: padding and missing kept apart, statistics, predictions that do not depend on batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msademo.corruption import MODALITIES
from msademo.features.bundle import EPSILON, Features, Statistics, Track, collate, heard_together, predict, token_masks
from msademo.features.text import TextTokens
from msademo.models.pglh import PGLH, PGLHConfig

DIMS = {"text": 4, "audio": 3, "vision": 2}


def track(rng, count: int, width: int, lacking=()) -> Track:
    missing = np.isin(np.arange(count), lacking)
    return Track(rng.normal(size=(count, width)).astype(np.float32), missing, np.zeros((count, 2)))


def clip(seed: int, words: int, voice: int, frames: int, lacking=(), score: float | None = None) -> Features:
    """One piece a word."""
    rng = np.random.default_rng(seed)
    places = np.array([-1, *range(words), -1])
    return Features(TextTokens(np.arange(words + 2), places, places, ("p",) * (words + 2), words),
                    track(rng, voice, DIMS["audio"]), track(rng, frames, DIMS["vision"], lacking), score)


def none_of(features: Features) -> dict[str, np.ndarray]:
    return {m: np.zeros(features.units(m), bool) for m in MODALITIES}


@pytest.fixture
def statistics() -> Statistics:
    rng = np.random.default_rng(9)
    return Statistics({m: rng.normal(size=d).astype(np.float32) for m, d in DIMS.items()},
                      {m: rng.uniform(0.5, 2, d).astype(np.float32) for m, d in DIMS.items()})


@pytest.fixture
def samples() -> list[Features]:
    return [clip(0, 3, 5, 2, lacking=[1]), clip(1, 6, 0, 4), clip(2, 0, 2, 0)]


def words_of(samples) -> torch.Tensor:
    return torch.randn(len(samples), max(len(s.tokens) for s in samples), DIMS["text"], generator=torch.Generator().manual_seed(0))


def test_collate_keeps_missing_and_padding_apart(samples, statistics):
    masks = [token_masks(s, {m: np.arange(s.units(m)) == 0 for m in MODALITIES}) for s in samples]
    text = words_of(samples)
    batch = collate(samples, masks, text, statistics)
    for m in MODALITIES:
        longest = max(len(mask[m]) for mask in masks)
        assert batch.values[m].shape == (3, longest, DIMS[m]) and batch.values[m].dtype == torch.float32
        assert batch.missing[m].dtype == batch.padding[m].dtype == torch.bool
        for i, mask in enumerate(masks):
            assert batch.padding[m][i].tolist() == [False] * len(mask[m]) + [True] * (longest - len(mask[m]))
            assert batch.missing[m][i].tolist() == mask[m].tolist() + [False] * (longest - len(mask[m]))
            if m != "text" and len(mask[m]):
                expected = (samples[i].track(m).values - statistics.mean[m]) / statistics.deviation[m]
                np.testing.assert_allclose(batch.values[m][i, :len(mask[m])], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(batch.hidden(m), batch.missing[m] | batch.padding[m])
    np.testing.assert_allclose(batch.values["text"], (text.numpy() - statistics.mean["text"]) / statistics.deviation["text"], rtol=1e-5, atol=1e-6)
    assert batch.score is None and batch.target["text"] is batch.values["text"]


def test_what_the_clip_lacks_is_missing_whatever_is_asked(samples):
    assert token_masks(samples[0], none_of(samples[0]))["vision"].tolist() == [False, True]
    taken = none_of(samples[0]) | {"vision": np.array([True, False])}
    assert token_masks(samples[0], taken)["vision"].all()
    assert token_masks(samples[2], none_of(samples[2]))["text"].all()           # no words: CLS and SEP say nothing
    assert samples[0].vision.present and not samples[2].vision.present and samples[2].audio.present
    assert not track(np.random.default_rng(0), 2, 2, lacking=[0, 1]).present


def test_nobody_has_a_modality(statistics):
    samples = [clip(i, 2, 0, 0) for i in range(2)]
    batch = collate(samples, [token_masks(s, none_of(s)) for s in samples], words_of(samples), statistics)
    assert batch.values["audio"].shape == (2, 1, DIMS["audio"]) and batch.padding["audio"].all() and not batch.missing["audio"].any()


def test_targets_are_the_clean_pass(statistics):
    samples = [clip(i, 2, 3, 3, score=float(i)) for i in range(2)]
    masks, read, clean = [token_masks(s, none_of(s)) for s in samples], words_of(samples), words_of(samples) + 1
    batch = collate(samples, masks, read, statistics, clean)
    torch.testing.assert_close(batch.target["text"], statistics.standardise(clean, "text"))
    assert not torch.equal(batch.target["text"], batch.values["text"])
    assert batch.score.tolist() == [0.0, 1.0]


def test_statistics_standardise_and_survive_json(statistics):
    rng = np.random.default_rng(0)
    values = {m: rng.normal(3, 2, (500, d)).astype(np.float32) for m, d in DIMS.items()}
    values["audio"][:, 1] = 7                                                   # never varies
    measured = Statistics.of(values)
    for m in MODALITIES:
        out = measured.standardise(torch.from_numpy(values[m]), m).numpy()
        varied = np.array([d for d in range(DIMS[m]) if (m, d) != ("audio", 1)])
        np.testing.assert_allclose(out[:, varied].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(out[:, varied].std(0), 1, atol=1e-4)
        assert np.isfinite(out).all()
    assert measured.deviation["audio"][1] == np.float32(EPSILON)
    again = Statistics.from_dict(measured.to_dict())
    for m in MODALITIES:
        assert np.array_equal(again.mean[m], measured.mean[m]) and np.array_equal(again.deviation[m], measured.deviation[m])


def test_predictions_do_not_depend_on_the_batch(samples, statistics):
    torch.manual_seed(0)
    model = PGLH(PGLHConfig(dims=DIMS, width=8, heads=2)).eval()
    masks, text = [token_masks(s, none_of(s)) for s in samples], words_of(samples)
    words = [text[i, :len(s.tokens)] for i, s in enumerate(samples)]
    together = predict(model, statistics, samples, masks, words)
    assert together.shape == (3,) and np.ptp(together) > 1e-4
    np.testing.assert_allclose(predict(model, statistics, samples, masks, words, batch=1), together, atol=1e-5)
    np.testing.assert_allclose(predict(model, statistics, samples[::-1], masks[::-1], words[::-1], batch=2), together[::-1], atol=1e-5)


def test_a_voice_is_read_by_what_its_visible_tokens_amount_to():
    values = np.float32([[5, 0, 0], [6, 2, 0], [7, 0, 4]])
    read = heard_together(values, np.array([False, True, False]), 2)
    odds = np.exp([0.0, 2.0])                                                   # the mean of (0, 0) and (0, 4)
    np.testing.assert_allclose(read[:, 1:], np.tile(odds / odds.sum(), (3, 1)), rtol=1e-6)
    assert read[:, 0].tolist() == [5, 6, 7] and values[1, 1] == 2               # the rest stays, and so does what was given
    assert np.allclose(heard_together(values, np.ones(3, bool), 2)[:, 1:], 0.5)
    assert heard_together(values, np.zeros(3, bool), 0) is values and heard_together(values[:0], np.zeros(0, bool), 2).shape == (0, 3)
    huge = heard_together(np.float32([[0, 1e4, -1e4]]), np.zeros(1, bool), 2)
    assert huge[0].tolist() == [0, 1, 0]


def test_hidden_evidence_leaves_no_trace(samples, statistics):
    heard = Statistics(statistics.mean, statistics.deviation, emotions=2)
    masks = [token_masks(s, {m: np.arange(s.units(m)) < (2 if m == "audio" else 0) for m in MODALITIES}) for s in samples]
    before = collate(samples, masks, words_of(samples), heard)
    shown = ~before.hidden("audio")[0]
    samples[0].audio.values[:2, -2:] += 100
    after = collate(samples, masks, words_of(samples), heard)
    assert torch.equal(before.values["audio"][0, shown], after.values["audio"][0, shown])
    # What is to be recovered is what the whole voice amounts to, with or without targets for the words.
    whole = heard_together(samples[0].audio.values, samples[0].audio.missing, 2)
    np.testing.assert_allclose(after.target["audio"][0, :5], heard.standardise(torch.from_numpy(whole), "audio"), rtol=1e-5, atol=1e-5)
    assert Statistics.from_dict(heard.to_dict()).emotions == 2 and Statistics.from_dict(statistics.to_dict()).emotions == 0

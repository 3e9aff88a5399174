"""Masks: nested, seeded, of the asked share; LNLN's protocol bit for bit; the words of a text."""

from __future__ import annotations

import numpy as np
import pytest

from msademo.corruption import KINDS, MODALITIES, SPAN, check_kind, check_ratio, check_seed, levels, lnln_missing, missing
from msademo.errors import InputError
from msademo.features.text import TextTokens
from msademo.options import kinds_of, models_of, ratios_of

RATIOS = np.round(np.linspace(0, 1, 21), 2)
each_kind = pytest.mark.parametrize("kind", KINDS)


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(edges[1::2] - edges[::2])


@each_kind
@pytest.mark.parametrize("n", [1, 2, 7, 50, 200])
def test_a_higher_ratio_only_takes_more_away(kind, n):
    for seed in range(5):
        masks = [missing(n, r, "audio", seed, kind) for r in RATIOS]
        for fewer, more in zip(masks, masks[1:]):
            assert not (fewer & ~more).any()
        assert not masks[0].any() and masks[-1].all()


@each_kind
def test_the_seed_decides_and_each_modality_has_its_own_stream(kind):
    first = {m: missing(60, 0.5, m, 3, kind) for m in MODALITIES}
    for m in MODALITIES:
        assert np.array_equal(first[m], missing(60, 0.5, m, 3, kind))
        assert not np.array_equal(first[m], missing(60, 0.5, m, 4, kind))
    assert len({mask.tobytes() for mask in first.values()}) == 3
    assert first["text"].dtype == bool and first["text"].shape == (60,)


@each_kind
def test_about_the_asked_share_goes(kind):
    for ratio in (0.1, 0.35, 0.5, 0.8):
        shares = [missing(200, ratio, "vision", seed, kind).mean() for seed in range(50)]
        assert abs(np.mean(shares) - ratio) < 0.02             # 50 x 200 draws: one deviation is below 0.005
        if kind == "span":                                      # spans are counted out, not drawn
            assert np.ptp(shares) == 0


@each_kind
def test_nothing_to_take_from_nothing(kind):
    assert missing(0, 0.5, "text", 0, kind).shape == (0,)


def test_spans_fail_in_bursts():
    for seed in range(20):
        mask = missing(120, 0.5, "audio", seed, "span")
        # All but the block that is failing just now and the clip's last one are whole.
        assert sum(length < SPAN[0] for length in runs(mask)) <= 2
    mean_run = lambda kind: np.mean([length for seed in range(20) for length in runs(missing(120, 0.5, "audio", seed, kind))])
    assert mean_run("span") > 2 * mean_run("random")


@pytest.mark.parametrize("ratio", [float("nan"), -1, -1e-9, 1.0001, 2, float("inf"), pytest.param(10 ** 400, id="huge"), "x", "", None, [0.5, 0.5]])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(InputError, match="0 .*1") as refusal:
        missing(5, ratio, "text", 0)
    assert "\n" not in str(refusal.value)


def test_ratios_are_taken_as_numbers():
    assert check_ratio(np.float32(0.5)) == 0.5 and check_ratio(1) == 1.0 and check_ratio(0) == 0.0
    with pytest.raises(InputError, match="The severity"):
        check_ratio(7, "The severity")


@pytest.mark.parametrize("kind", ["burst", "", None, 3, ["random"]])
def test_an_unknown_kind_is_refused_with_the_choice(kind):
    with pytest.raises(InputError, match="random, span"):
        missing(5, 0.5, "text", 0, kind)
    with pytest.raises(InputError):
        check_kind(kind)


@pytest.mark.parametrize("seed", [-1, 1.5, float("nan"), float("inf"), "5", "x", None, [1]])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(InputError, match="whole number"):
        check_seed(seed)
    with pytest.raises(InputError, match="whole number"):
        levels(5, "text", seed)


def test_seeds_may_be_numpy_or_whole_floats():
    assert check_seed(np.int64(7)) == check_seed(7.0) == 7


def literal_lnln(valid: np.ndarray, rate: float, seed: int, text: bool) -> np.ndarray:
    """The rule told token by token: reseed, one uniform number a place (padding included), keep where it exceeds the rate."""
    np.random.seed(seed)
    rows, length = valid.shape
    numbers = np.random.uniform(size=(rows, length))
    gone = np.zeros((rows, length), bool)
    for i in range(rows):
        tokens = [j for j in range(length) if valid[i, j]]
        for j in tokens:
            special = text and j in (tokens[0], tokens[-1])
            gone[i, j] = not special and not numbers[i, j] > rate
    return gone


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0, "a drawn number"])
def test_lnln_bit_for_bit(rate, text):
    lengths = np.concatenate([[1, 2, 3, 9, 30], np.random.default_rng(0).integers(1, 31, 300)])
    valid = np.arange(30) < lengths[:, None]
    if rate == "a drawn number":                                # kept only what exceeds the rate: here one place is on the edge
        rate = float(np.random.RandomState(1111).uniform(size=valid.shape)[4, 7])
        assert text or lnln_missing(valid, rate, 1111, text)[4, 7]
    ours = lnln_missing(valid, rate, 1111, text)
    assert np.array_equal(ours, literal_lnln(valid, rate, 1111, text))
    assert not ours[~valid].any()
    if text:
        assert not ours[:, 0].any() and not ours[np.arange(len(valid)), lengths - 1].any()
    if rate == 1 and not text:
        assert np.array_equal(ours, valid)


def test_lnln_shares_its_masks_between_modalities_of_one_length_and_leaves_the_global_stream_alone():
    valid = np.ones((4, 25), bool)
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert np.array_equal(lnln_missing(valid, 0.4, 1111, False), lnln_missing(valid, 0.4, 1111, False))
    assert np.array_equal(state, np.random.get_state()[1])
    assert not np.array_equal(lnln_missing(valid, 0.4, 1111, False), lnln_missing(valid, 0.4, 1112, False))


def tokens(first: list[int], last: list[int], words: int) -> TextTokens:
    size = len(first) + 2
    return TextTokens(np.arange(size), np.array([-1, *first, -1]), np.array([-1, *last, -1]), ("p",) * size, words)


def test_the_pieces_of_a_word_go_together_and_the_ends_stay():
    text = tokens([0, 1, 1, 1, 2, 3], [0, 1, 1, 1, 2, 3], 4)
    assert text.missing(np.array([False, True, False, False])).tolist() == [False, False, True, True, True, False, False, False]
    assert text.missing(np.array([True, False, True, True])).tolist() == [False, True, False, False, False, True, True, False]
    assert not text.missing(np.zeros(4, bool)).any()


def test_a_piece_across_words_goes_with_any_of_them():
    text = tokens([0, 1, 4], [0, 3, 4], 5)                     # the second piece covers words 1 to 3
    for word, expected in enumerate([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]):
        assert text.missing(np.arange(5) == word)[1:-1].tolist() == [bool(e) for e in expected]


def test_without_any_word_left_the_whole_text_is_missing():
    text = tokens([0, 1], [0, 1], 2)
    assert text.missing(np.ones(2, bool)).all()
    assert tokens([], [], 0).missing(np.zeros(0, bool)).all()
    # Word 2 did not fit into the encoder: when the ones that did are gone, nothing is left to be read.
    assert tokens([0, 1], [0, 1], 3).missing(np.array([True, True, False])).all()


def test_word_masks_stay_nested_as_token_masks():
    text = tokens([0, 0, 1, 2, 2, 2, 3, 4], [0, 0, 1, 2, 2, 2, 3, 4], 5)
    masks = [text.missing(missing(5, r, "text", 1)) for r in RATIOS]
    assert all(not (fewer & ~more).any() for fewer, more in zip(masks, masks[1:]))
    assert masks[-1].all() and not masks[0].any()


@pytest.mark.parametrize("refuse", [check_ratio, check_seed, check_kind, models_of, kinds_of, ratios_of])
@pytest.mark.parametrize("value", ["x" * 5000, ["y" * 5000] * 50, -10**4000])
def test_long_values_are_quoted_in_short(refuse, value):
    with pytest.raises(InputError) as refused:
        refuse(value)
    assert len(str(refused.value)) < 400

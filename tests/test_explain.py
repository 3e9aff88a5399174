"""The numbers beside attention maps against slow, literal versions; what is missing never counts; layers of unequal depth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msademo import explain
from msademo.errors import InputError
from msademo.explain import Alignment


def rows(words=4, moments=9, seed=0, sharp=1.0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(moments, 1 / sharp), words)


def literal_entropy(row) -> float:
    return sum(-p * math.log2(p) for p in row if p > 0)


def literal_js(a, b) -> float:
    mean = [(x + y) / 2 for x, y in zip(a, b)]
    kl = lambda p, q: sum(x * math.log2(x / y) for x, y in zip(p, q) if x > 0)
    return kl(a, mean) / 2 + kl(b, mean) / 2


def literal_overlap(a, b, top) -> float:
    best = lambda row: set(sorted(range(len(row)), key=lambda i: (-row[i], i))[:top])
    return len(best(a) & best(b)) / min(top, len(a))


@pytest.mark.parametrize("moments", [1, 3, 9])
def test_every_number_is_what_its_definition_says(moments):
    a, b = rows(moments=moments, seed=1, sharp=3), rows(moments=moments, seed=2)
    for i in range(len(a)):
        assert explain.entropy(a)[i] == pytest.approx(literal_entropy(a[i]))
        assert explain.js_divergence(a, b)[i] == pytest.approx(literal_js(a[i], b[i]), abs=1e-12)
        assert explain.l1(a, b)[i] == pytest.approx(sum(abs(x - y) for x, y in zip(a[i], b[i])))
        assert explain.top_overlap(a, b)[i] == pytest.approx(literal_overlap(a[i], b[i], 5))
        assert explain.moved(a, b)[i] == pytest.approx(sum(max(x - y, 0) for x, y in zip(a[i], b[i])))
    for t in range(moments):
        assert explain.gained(a, b)[t] == pytest.approx(sum(a[i][t] - b[i][t] for i in range(len(a))) / len(a))


def test_the_ends_of_each_number():
    one, other, even = np.eye(8)[:1], np.eye(8)[1:2], np.full((1, 8), 1 / 8)
    assert explain.entropy(one) == 0 and explain.entropy(even) == 3
    assert explain.js_divergence(one, one) == 0 and explain.js_divergence(one, other) == 1 and explain.js_divergence(even, even) == 0
    assert explain.l1(one, other) == 2 and explain.l1(even, even) == 0
    assert explain.top_overlap(even, even) == 1 and explain.top_overlap(one, other, 1) == 0
    disjoint = np.roll(np.repeat([[0.2, 0.0]], 5, 1), 5)
    assert explain.top_overlap(np.repeat([[0.2, 0.0]], 5, 1), disjoint) == 0
    assert not np.signbit(explain.entropy(one)).any()


def test_layers_and_heads_go_along():
    a, b = rows(24).reshape(2, 3, 4, 9), rows(24, seed=1).reshape(2, 3, 4, 9)
    for number in (explain.js_divergence, explain.l1, explain.top_overlap):
        assert number(a, b).shape == (2, 3, 4) and number(a, b)[1, 2] == pytest.approx(number(a[1, 2], b[1, 2]))


def hidden_alignment(words=5, moments=7, seed=0):
    """Teacher of 6 layers, student of 2; word 1 and moments 0 and 4 are missing."""
    rng = np.random.default_rng(seed)
    words_hidden, moments_hidden = np.zeros(words, bool), np.zeros(moments, bool)
    words_hidden[1], moments_hidden[[0, 4]] = True, True
    maps = {}
    for view, layers in (("teacher", 6), ("without", 6), ("student", 2)):
        full = np.zeros((layers, 3, words, moments), np.float32)
        full[..., ~moments_hidden] = rng.dirichlet(np.ones((~moments_hidden).sum()), (layers, 3, words))
        full[..., words_hidden, :] = 0
        maps[view] = full
    times = np.stack([np.arange(moments), np.arange(1, moments + 1)], 1) / 5
    return Alignment(maps, tuple(f"word{i}" for i in range(words)), words_hidden, times, moments_hidden)


def test_what_is_missing_is_nan_in_the_map_and_nowhere_in_the_numbers():
    found = hidden_alignment()
    shown = found.map("teacher")
    assert np.isnan(shown[1]).all() and np.isnan(shown[:, [0, 4]]).all() and np.isnan(shown).sum() == 7 + 2 * 4
    assert np.nansum(shown, axis=1)[[0, 2, 3, 4]] == pytest.approx(np.ones(4), abs=1e-6)
    got = found.compare("teacher", "without")
    seen = np.ix_([0, 2, 3, 4], [1, 2, 3, 5, 6])
    a, b = (found.maps[view][-1].astype(float).mean(0)[seen] for view in ("teacher", "without"))
    assert got.js == pytest.approx(np.mean([literal_js(x, y) for x, y in zip(a, b)]), abs=1e-6)
    assert found.entropy("without") == pytest.approx(np.mean([literal_entropy(x) for x in b]), abs=1e-6) and found.even == pytest.approx(math.log2(5))
    assert got.l1 == pytest.approx(np.abs(a - b).sum(1).mean(), abs=1e-6)
    assert got.overlap == 1                                                  # only five moments are left
    assert not {word for word, *_ in got.words} & {1} and not {moment for moment, _ in got.moments} & {0, 4}


def test_the_words_and_moments_that_changed_most_are_named_by_their_place_in_the_clip():
    found = hidden_alignment()
    before = np.zeros((1, 1, 5, 7), np.float32)
    before[..., [0, 2, 3, 4], 2] = 1
    after = before.copy()
    after[0, 0, 3, 2], after[0, 0, 3, 5] = 0.25, 0.75                         # word 3 turns to moment 5
    after[0, 0, 0, 2], after[0, 0, 0, 6] = 0.9, 0.1
    got = Alignment({"teacher": after, "without": before}, found.words, found.words_hidden, found.times, found.moments_hidden).compare("teacher", "without")
    assert [(w, pytest.approx(share), t) for w, share, t in got.words] == [(3, 0.75, 5), (0, 0.1, 6)]
    assert [(t, pytest.approx(gain)) for t, gain in got.moments] == [(5, 0.75 / 4), (6, 0.1 / 4)]
    same = Alignment({"teacher": before, "without": before}, found.words, found.words_hidden, found.times, found.moments_hidden).compare("teacher", "without")
    assert same.words == same.moments == () and same.js == same.l1 == 0 and same.overlap == 1


def test_a_head_or_their_mean_and_layers_at_the_same_relative_depth():
    found = hidden_alignment()
    seen = np.ix_([0, 2, 3, 4], [1, 2, 3, 5, 6])
    assert found.layers == 6 and found.heads == 3
    assert found.map("teacher", 2, 3)[seen] == pytest.approx(found.maps["teacher"][1, 2][seen])
    assert found.map("teacher", 2)[seen] == pytest.approx(found.maps["teacher"][1].mean(0)[seen])
    assert [found.layer_of("student", layer) for layer in (1, 2, 3, 4, 5, 6, None)] == [1, 1, 1, 2, 2, 2, 2]
    assert [found.layer_of("teacher", layer) for layer in (1, 6, None)] == [1, 6, 6]
    for wrong in (dict(layer=0), dict(layer=7), dict(head=0), dict(head=4)):
        with pytest.raises(InputError, match="choose one"):
            found.map("teacher", **wrong)
    with pytest.raises(InputError, match="teacher, without, student"):
        found.map("oracle")


def test_nothing_left_has_no_numbers():
    found = hidden_alignment()
    for words_hidden, moments_hidden in ((np.ones(5, bool), found.moments_hidden), (found.words_hidden, np.ones(7, bool))):
        nothing = Alignment(found.maps, found.words, words_hidden, found.times, moments_hidden)
        assert nothing.compare("teacher", "student") is None and nothing.entropy("teacher") is None and np.isnan(nothing.map("teacher")).all()
    with pytest.raises(InputError):
        explain.top_overlap(np.zeros((3, 0)), np.zeros((3, 0)))


def test_pieces_fold_into_words():
    first, last = [-1, 0, 0, 1, 2, -1], [-1, 0, 0, 2, 2, -1]                    # CLS, two pieces of word 0, one over 1 and 2, one of 2, SEP
    hidden = np.array([False, False, True, False, False, False])
    weights = explain.fold(first, last, hidden, 4)
    assert weights.tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0] * 6]
    attention = rows(6)
    assert (weights @ attention)[:3].sum(1) == pytest.approx(np.ones(3))        # a mean of rows still shares out all of it

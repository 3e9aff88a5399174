"""What a plain model that has not seen a post makes of it: regressions by folds, and targets that trust them in part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from train import unseen
from train.unseen import folds_of, opinions, regression, trusted


@pytest.fixture
def told():
    """60 posts of three classes whose features tell the class, and one of them with a wrong label."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = F.one_hot(labels, 3).float() @ torch.randn(3, 8) * 2 + torch.randn(60, 8) * 0.3
    wrong = labels.clone()
    wrong[4] = 2
    return features, labels, wrong


def test_every_class_is_spread_over_the_folds():
    labels = torch.tensor([0] * 25 + [1] * 11 + [2] * 4)
    fold_of = folds_of(labels, 5, 3)
    assert torch.equal(fold_of, folds_of(labels, 5, 3)) and not torch.equal(fold_of, folds_of(labels, 5, 4))
    for label in range(3):
        counts = np.bincount(fold_of[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold_of).tolist() == [8] * 5


def test_the_regression_is_at_its_minimum(told, monkeypatch):
    """The gradient of the penalised loss, written out, is zero there; more penalty gives smaller weights."""
    features, labels, _ = told
    sizes = []
    for penalty in (5.0, 500.0):
        monkeypatch.setattr(unseen, "PENALTY", penalty)
        weights, biases = regression(features.double(), labels, 3)
        surplus = (features.double() @ weights + biases).softmax(-1) - F.one_hot(labels, 3)
        assert (features.double().T @ surplus + penalty * weights).abs().max() < 1e-3 and surplus.sum(0).abs().max() < 1e-3
        sizes.append(float(weights.norm()))
    assert sizes[1] < sizes[0]


def test_nobody_has_seen_the_label_they_speak_of(told, monkeypatch):
    """A wrong label changes nothing in what is said of its own post, which is named rightly, and something in what is said of others."""
    monkeypatch.setattr(unseen, "PENALTY", 5.0)
    monkeypatch.setattr(unseen, "folds_of", lambda labels, folds, seed: torch.arange(len(labels)) % folds)      # else the labels move the folds
    features, labels, wrong = told
    before, after = opinions(features, labels, 3, 0), opinions(features, wrong, 3, 0)
    assert torch.allclose(before.sum(1), torch.ones(60)) and (before.argmax(1) == labels).float().mean() > 0.9
    assert torch.equal(before[4], after[4]) and after[4].argmax() == labels[4] != wrong[4]
    assert not torch.equal(before[5], after[5])


def test_targets_lie_between_label_and_opinion():
    labels, opinion = torch.tensor([2, 0]), torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05]])
    assert torch.allclose(trusted(labels, opinion, 0.5), torch.tensor([[0.25, 0.15, 0.6], [0.95, 0.025, 0.025]]))
    assert torch.equal(trusted(labels, opinion, 1.0), opinion) and torch.equal(trusted(labels, opinion, 0.0), F.one_hot(labels, 3).float())

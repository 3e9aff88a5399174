"""What a plain model that has not seen a post makes of it: a part of SPRO's targets, for labels that are one person's word.

The training posts are divided into folds, and each fold is read by a multinomial logistic regression on the others. So a
label that words and picture do not bear out is softened, by who could not have learnt it by heart (as train/face.py does with
its teachers), and one that they do bear out is left nearly as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

FOLDS = 10
PENALTY = 1000.0          # on half the squared weights, beside the summed cross-entropy: the best of 500, 1000 and 2000 by five folds over MVSA-Single's train and valid posts
ITERATIONS = 200


def folds_of(labels: torch.Tensor, folds: int, seed: int) -> torch.Tensor:
    """(N,) int64: which fold each row belongs to; every class is spread evenly over them."""
    rng, found = np.random.default_rng(seed), np.empty(len(labels), dtype=np.int64)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    found[by_class] = np.arange(len(labels)) % folds
    return torch.from_numpy(found)


def regression(features: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (D, classes) and biases (classes,) of the logistic regression with PENALTY; features (N, D) float64, standardised."""
    weights = torch.zeros(features.shape[1], classes, dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights, biases], max_iter=ITERATIONS, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(features @ weights + biases, labels) + PENALTY / len(labels) * weights.square().sum() / 2
        loss.backward()
        return loss

    solver.step(objective)
    return weights.detach(), biases.detach()


def opinions(features: torch.Tensor, labels: torch.Tensor, classes: int, seed: int) -> torch.Tensor:
    """(N, classes) float32 probabilities of every row, by a regression on the folds it is not in. features (N, D), labels (N,) int64."""
    features, found = features.detach().cpu().double(), torch.empty(len(labels), classes)
    fold_of = folds_of(labels, min(FOLDS, len(labels)), seed)
    for fold in fold_of.unique():
        away, seen = fold_of == fold, fold_of != fold
        mean, deviation = features[seen].mean(0), features[seen].std(0, correction=0).clamp(min=1e-6)
        weights, biases = regression((features[seen] - mean) / deviation, labels[seen], classes)
        found[away] = ((features[away] - mean) / deviation @ weights + biases).softmax(-1).float()
    return found


def trusted(labels: torch.Tensor, opinion: torch.Tensor, trust: float) -> torch.Tensor:
    """(N, classes) targets: the label, mixed with `trust` of the opinion."""
    return torch.lerp(F.one_hot(labels, opinion.shape[1]).float(), opinion, trust)

"""The field's metrics against tables worked by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from msademo.metrics import REGRESSION, balanced_signs, correlation, regression_metrics, weighted_f1


def test_a_table_worked_by_hand():
    truth = np.array([2.6, -1.0, 0.0, 0.4, -2.5, 1.5])
    predicted = np.array([3.9, 0.2, -0.1, 0.0, -2.4, 2.5])
    metrics = regression_metrics(predicted, truth)
    # truth >= 0:      + - + + - +      predicted >= 0:  + + - + - +      four of six agree
    assert metrics["acc2_has0"] == pytest.approx(4 / 6)
    # without the zero: + - + - +       predicted > 0:   + + - - +        a prediction of 0 counts as negative
    assert metrics["acc2_non0"] == pytest.approx(3 / 5)
    # to whole numbers in +-3: 3 -1 0 0 -2 2 against 3 0 -0 0 -2 2 (2.5 and -2.5 go to the even 2 and -2; 1.5 to 2)
    assert metrics["acc7"] == pytest.approx(5 / 6)
    # in +-2: 2 -1 0 0 -2 2 against 2 0 0 0 -2 2
    assert metrics["acc5"] == pytest.approx(5 / 6)
    assert metrics["mae"] == pytest.approx((1.3 + 1.2 + 0.1 + 0.4 + 0.1 + 1.0) / 6)      # 3.9 is not clipped
    # positives 2.6, 0.4, 1.5: two of three found; negatives -1, -2.5: one of two
    assert metrics["acc2_balanced"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # has0: 4 true +, of which 3 found and 1 false: F1 = 6/8; 2 true -, 1 found, 1 false: F1 = 2/4
    assert metrics["f1_has0"] == pytest.approx(4 / 6 * 6 / 8 + 2 / 6 * 2 / 4)
    # non0: 3 true +, 2 found, 1 false: 4/6; 2 true -, 1 found, 1 false: 2/4
    assert metrics["f1_non0"] == pytest.approx(3 / 5 * 4 / 6 + 2 / 5 * 2 / 4)
    assert set(REGRESSION) <= set(metrics)


@pytest.mark.parametrize("value, seven, five", [(0.5, 0, 0), (-0.5, 0, 0), (1.5, 2, 2), (2.5, 2, 2), (-1.5, -2, -2), (3.4, 3, 2), (-9, -3, -2)])
def test_halves_go_to_the_even_number_and_far_ones_are_clipped(value, seven, five):
    for whole in range(-3, 4):
        metrics = regression_metrics(np.array([value]), np.array([float(whole)]))
        assert metrics["acc7"] == (whole == seven)
        assert metrics["acc5"] == (np.clip(whole, -2, 2) == five)


def test_zero_counts_as_not_negative_with_zeros_and_is_left_out_without():
    metrics = regression_metrics(np.array([0.0, -1.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    assert metrics["acc2_has0"] == pytest.approx(2 / 3) and metrics["acc2_non0"] == 1.0
    nothing = regression_metrics(np.array([0.3, -1.0]), np.zeros(2))
    assert nothing["acc2_has0"] == 0.5 and np.isnan(nothing["acc2_non0"]) and np.isnan(nothing["f1_non0"]) and np.isnan(nothing["acc2_balanced"])


@pytest.mark.parametrize("seed", range(10))
def test_as_scikit_learn_has_them(seed):
    rng = np.random.default_rng(seed)
    truth = np.round(rng.uniform(-3, 3, 60) * 5) / 5              # zeros among them
    truth[:3] = 0
    predicted = truth + rng.normal(0, 1.5, 60)
    metrics, signed = regression_metrics(predicted, truth), truth != 0
    assert metrics["acc2_has0"] == pytest.approx(accuracy_score(truth >= 0, predicted >= 0))
    assert metrics["f1_has0"] == pytest.approx(f1_score(truth >= 0, predicted >= 0, average="weighted"))
    assert metrics["acc2_non0"] == pytest.approx(accuracy_score(truth[signed] > 0, predicted[signed] > 0))
    assert metrics["f1_non0"] == pytest.approx(f1_score(truth[signed] > 0, predicted[signed] > 0, average="weighted"))
    assert metrics["acc2_balanced"] == pytest.approx(balanced_accuracy_score(truth[signed] > 0, predicted[signed] > 0))
    for limit, name in ((2, "acc5"), (3, "acc7")):
        rounded = lambda x: np.round(np.clip(x, -limit, limit)).astype(int)
        assert metrics[name] == pytest.approx(accuracy_score(rounded(truth), rounded(predicted)))
    classes, guess = rng.integers(0, 4, 40), rng.integers(0, 5, 40)
    assert weighted_f1(classes, guess) == pytest.approx(f1_score(classes, guess, average="weighted"))
    assert metrics["corr"] == pytest.approx(np.mean((predicted - predicted.mean()) * (truth - truth.mean())) / predicted.std() / truth.std())


@pytest.mark.parametrize("constant", [-1.0, 0.0, 0.7])
def test_a_constant_earns_nothing(constant):
    truth = np.array([2.0, 1.0, -1.0, 0.5, -3.0, 0.0])
    metrics = regression_metrics(np.full(6, constant), truth)
    assert metrics["corr"] == 0.0 and metrics["acc2_balanced"] == 0.5
    assert balanced_signs(np.full(6, constant), truth) == 0.5


@pytest.mark.parametrize("positive", [1, 3, 5, 9])
def test_weighted_f1_of_a_constant(positive):
    truth = np.arange(10) < positive
    share = positive / 10
    assert weighted_f1(truth, np.ones(10, bool)) == pytest.approx(2 * share ** 2 / (1 + share))


def test_a_perfect_prediction():
    truth = np.array([-3.0, -1.2, 0.0, 0.6, 2.8])
    metrics = regression_metrics(truth, truth)
    assert metrics.pop("mae") == 0 and all(value == pytest.approx(1) for value in metrics.values())


def test_correlation_of_one_pair_or_a_constant_is_0():
    assert correlation(np.array([1.0]), np.array([2.0])) == 0.0
    assert correlation(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == 0.0
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([6.0, 4.0, 2.0])) == pytest.approx(-1)


@pytest.mark.parametrize("predicted, truth", [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([float("nan")], [1.0]),
                                              ([1.0], [float("inf")])])
def test_what_cannot_be_measured_is_refused(predicted, truth):
    with pytest.raises(ValueError, match="metrics need"):
        regression_metrics(np.array(predicted), np.array(truth))

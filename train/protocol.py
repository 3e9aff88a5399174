"""Measuring a model of a pickle: the house's draws, or LNLN's masks bit for bit; missing rates, and modalities absent as a whole."""

from __future__ import annotations

import time
from typing import Mapping, Sequence

import numpy as np

from msademo.corruption import MODALITIES, lnln_missing
from msademo.errors import InputError
from msademo.features.bundle import predict
from msademo.registry import FusionModel
from train.evaluate import ABSENT, average
from train.featured import METRICS, Featured, unit_masks

PROTOCOLS = {"draws": "{draws} mask draws a rate, each modality with its own stream",
             "lnln": "LNLN's masks, one draw a rate by numpy's RandomState({seed}), seeded afresh for every modality; CLS and SEP stay"}
HOW = {"fixed": "the pickle's text features were made from whole sentences and are masked behind the encoder, which leaks",
       "draws": "missing words are taken away before the text encoder reads them",
       "lnln": "missing ids are replaced by [UNK] (100), which the text encoder reads; the model is told which they are"}


def lnln_masks(data: Featured, ratios: Mapping[str, float], seed: int) -> list[dict[str, np.ndarray]]:
    """LNLN's masks of a whole split, (T,) bool over each sample's tokens. One stream runs through the padded arrays of the file, so it
    is drawn over those and then cut to the tokens there are."""
    split, whole = data.split, {}
    for m in MODALITIES:
        padded = split.bert.shape[2] if m == "text" and split.bert is not None else getattr(split, m).shape[1]
        whole[m] = lnln_missing(np.arange(padded)[None] < split.lengths[m][:, None], ratios[m], seed, m == "text")
    # A step that is zeros in the file stays what it is by these masks; it is told as missing as well.
    lacking = lambda sample, m: np.zeros(len(sample.tokens), bool) if m == "text" else sample.track(m).missing
    return [{m: whole[m][i, :len(lacking(sample, m))] | lacking(sample, m) for m in MODALITIES} for i, sample in enumerate(data.samples)]


def check_lnln(data: Featured) -> None:
    """InputError where LNLN's masks cannot be had: they lie over the ids or the features of the pickle."""
    if data.split.lengths["text"] is None or any(len(sample.tokens) != length for sample, length in zip(data.samples, data.split.lengths["text"])):
        raise InputError("The protocol lnln masks the token ids or text features of the pickle; give --text-encoder a BERT or pickle, or the protocol draws.")


class Bench:
    """One split to be measured on; metric names are those of its data set."""

    def __init__(self, data: Featured, dataset: str, protocol: str, draws: int, seed: int):
        if protocol == "lnln":
            check_lnln(data)
        self.data, self.metrics, self.protocol, self.draws, self.seed = data, METRICS[dataset], protocol, draws, seed

    def measure(self, fusion: FusionModel, cases: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        """Metrics of each case, a ratio a modality; cases share their text ratio, so that words are read once for all. Nothing is drawn where
        ratios are 0 or 1."""
        drawn = self.protocol == "draws" and any(0 < ratio < 1 for ratios in cases for ratio in ratios.values())
        prompts = None if self.data.prompts is None else [prompt.float() for prompt in self.data.prompts]
        found: list[list[dict[str, float]]] = [[] for _ in cases]
        for draw in range(self.draws if drawn else 1):
            words = None
            for ratios, rows in zip(cases, found):
                masks = lnln_masks(self.data, ratios, self.seed) if self.protocol == "lnln" else unit_masks(self.data, ratios, self.seed + 100_000 * draw)
                if words is None:
                    words = self.data.texts.features(range(len(masks)), [mask["text"] for mask in masks], unknown=self.protocol == "lnln")
                rows.append(self.metrics(predict(fusion.model, fusion.statistics, self.data.samples, masks, words, prompts=prompts), self.data.truth))
        return [average(rows) for rows in found]

    def floor(self, median: float) -> dict[str, float]:
        """What a constant reaches: the error of the training scores' median, and the best accuracies and F1 that any of a few constants has."""
        limit = np.abs(self.data.truth).max()
        constants = [np.full(len(self.data.truth), value) for value in (-limit, -1.0, -0.2, 0.0, 0.2, 1.0, limit)]
        rows = [self.metrics(constant, self.data.truth) for constant in constants]
        best = {name: max(row[name] for row in rows) for name in rows[0] if name.startswith(("acc", "f1"))}
        return {**best, "mae": self.metrics(np.full(len(self.data.truth), median), self.data.truth)["mae"]}

    def report(self, fusion: FusionModel, rates: Sequence[float], known: Sequence[dict] = (), keep=lambda rows: None, say=print) -> dict:
        """All figures; shares in [0, 1], the error on the labels' scale. known: rows that an earlier try had measured; keep gets the rows after
        each rate."""
        started, by_rate, absent = time.monotonic(), [], {}
        for number, rate in enumerate(rates, start=1):
            found = next((row for row in known if row["rate"] == rate), None)
            by_rate.append(row := found or {"rate": rate, **self.measure(fusion, [dict.fromkeys(MODALITIES, rate)])[0]})
            keep(by_rate)
            say(f"evaluate: rate {rate} mae {row['mae']:.4f} ({number}/{len(rates)}, {(time.monotonic() - started) / 60:.1f} min)")
        for with_text in (True, False):
            names = [name for name, gone in ABSENT.items() if ("text" not in gone) == with_text]
            cases = [{m: 1.0 if m in ABSENT[name] else 0.0 for m in MODALITIES} for name in names]
            absent |= dict(zip(names, self.measure(fusion, cases)))
        how = "fixed" if self.data.texts.values is not None else self.protocol
        return {"protocol": self.protocol, "split": self.data.split.name, "n": len(self.data.truth), "seed": self.seed,
                "about": f"{PROTOCOLS[self.protocol].format(draws=self.draws, seed=self.seed)}; {HOW[how]}; the epoch was chosen on valid; accuracies and F1 are shares in [0, 1]",
                "rates": by_rate, "average": average([{k: v for k, v in row.items() if k != "rate"} for row in by_rate]),
                "absent": absent, "floor": self.floor(fusion.meta["median"])}


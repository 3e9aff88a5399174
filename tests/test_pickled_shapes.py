"""Every method on pickles of MOSI's, MOSEI's and SIMS's exact keys, shapes and quirks: trained, measured and tabulated by the commands of the README."""

from __future__ import annotations

import json
from functools import cache

import pytest

from msademo.checkpoint import read_checkpoint
from msademo.models.pgmf import PAPER
from tests.pickle_support import write_bert, write_mmsa
from tests.test_pickled import PGMF_SMALL, SMALL
from train import pickled
from train.__main__ import main
from train.papers import COLUMNS
from train.readers import load_encoder

QUICK = ["seeds=1", "epochs=1", "draws=1", "valid_rates=0"]


METHODS = ("pglh", "pgmf-teacher", "pgmf-student")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All nine, with a BERT as wide as the published ones and otherwise tiny."""
    folder = tmp_path_factory.mktemp("runs")
    bert = str(write_bert(folder / "bert", 768))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickled, "load_encoder", cache(load_encoder))
        for dataset in PAPER:
            path = write_mmsa(folder / f"{dataset}.pkl", dataset, dataset, (4, 2, 4))
            for method in METHODS:
                words = ["--teacher", str(folder / f"pgmf-teacher-{dataset}")] if method == "pgmf-student" else ["--text-encoder", bert]
                small = SMALL + QUICK + (PGMF_SMALL if method != "pglh" else [])
                assert main([method, "--config", dataset, "--pickle", str(path), "--out", str(folder / f"{method}-{dataset}"), *words,
                             "--rates", "0:0.9:0.1" if method == "pglh" else "0", "--set", *small]) == 0
    return folder


@pytest.mark.parametrize("dataset", list(PAPER))
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_trained_and_measured(runs, method, dataset):
    folder = runs / f"{method}-{dataset}" / "seed-1"
    report = json.loads((folder / "report.json").read_text())
    assert report["dataset"] == dataset and report["n"] == 4 and set(COLUMNS[dataset]) <= set(report["average"])
    assert dict(read_checkpoint(folder / "model.safetensors", method).config["dims"]) == PAPER[dataset]["dims"]


def test_all_of_them_are_tabulated(runs):
    assert main(["table", str(runs), "--out", str(runs / "tables")]) == 0
    text = (runs / "tables" / "table.md").read_text()
    for dataset in PAPER:
        complete = next(part for part in text.split("### ") if part.startswith(f"{dataset.upper()}, nothing missing"))
        assert all(f"ours: {name} (test, draws" in complete for name in ("PGLH", "PGMF-Teacher", "PGMF-Student")) and "| PGMF-Student | " in complete
        over = next(part for part in text.split("### ") if part.startswith(f"{dataset.upper()}, means over"))
        assert "ours: PGLH" in over and "ours: PGMF" not in over.split("\n\n")[1], "one rate is no mean over ten"
        assert (runs / "tables" / f"{dataset}-mae.png").is_file()

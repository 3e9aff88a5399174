"""Tables of reports: grouping, means and deviations over seeds, per cent and digits, the papers' rows and errata beside them, and every format."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from train.__main__ import main
from train.papers import COLUMNS, printed
from train.plots import write_curves
from train.table import group, make_tables, read_reports, shown

RATES = [i / 10 for i in range(10)]


def figures(dataset, base):
    return {name: (base if name not in ("mae", "corr") else base * 2) for name in COLUMNS[dataset]}


def write_report(path, dataset="mosi", method="pglh", seed=1111, base=0.5, rates=RATES, protocol="draws", split="test", **more):
    report = {"method": method, "dataset": dataset, "text": "pickle", "training_seed": seed, "protocol": protocol, "split": split, "about": "ten draws",
              "rates": [{"rate": r, **figures(dataset, base - r / 10)} for r in rates], "average": figures(dataset, base - np.mean(rates) / 10),
              "absent": {"text": figures(dataset, 0.4), "audio+vision": figures(dataset, base)}, "floor": {k: v for k, v in figures(dataset, 0.3).items() if k != "corr"}, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))
    return path


def tables_of(*paths):
    return {table.caption: table for table in make_tables(group(read_reports(paths)))}


def row_of(table, name):
    return dict(zip(table.columns, next(row for row in table.rows if any(name in cell for cell in row[:2]))))


def test_means_and_deviations_over_seeds(tmp_path):
    for seed, base in ((1111, 0.5), (1112, 0.6), (1113, 0.55)):
        write_report(tmp_path / "pglh" / f"seed-{seed}" / "report.json", seed=seed, base=base)
    tables = tables_of(tmp_path)
    assert list(tables) == ["MOSI, means over r = 0 ... 0.9", "MOSI, nothing missing", "MOSI, by missing rate", "MOSI, whole modalities absent"]
    mean = row_of(tables["MOSI, means over r = 0 ... 0.9"], "ours: PGLH")
    assert mean["Acc-2 Has0"] == f"{100 * (0.55 - 0.045):.2f} ± {100 * np.std([0.5, 0.6, 0.55], ddof=1):.2f}" == "50.50 ± 5.00"
    assert mean["MAE"] == "1.010 ± 0.100" and "3 seeds" in mean["model"]
    assert row_of(tables["MOSI, nothing missing"], "ours: PGLH")["Corr"] == "1.100 ± 0.100"
    assert row_of(tables["MOSI, means over r = 0 ... 0.9"], "a constant")["Acc-7"] == "30.00" and row_of(tables["MOSI, means over r = 0 ... 0.9"], "a constant")["Corr"] == "-"
    by_rate = tables["MOSI, by missing rate"]
    assert len(by_rate.rows) == 20 and by_rate.rows[0][:3] == ("0", "PGLH, as printed", "82.07") and by_rate.rows[-1][0] == "0.9"
    assert row_of(tables["MOSI, whole modalities absent"], "audio+vision")["Acc-5"] == "55.00 ± 5.00"


def test_papers_rows_and_errata_stand_beside_ours(tmp_path):
    write_report(tmp_path / "a" / "report.json")
    write_report(tmp_path / "b" / "report.json", method="pgmf-student", rates=[0.0])
    tables = tables_of(tmp_path)
    over, complete = tables["MOSI, means over r = 0 ... 0.9"], tables["MOSI, nothing missing"]
    assert row_of(over, "LNLN")["Acc-2 Non0"] == "72.55" and row_of(over, "PGLH")["MAE"] == "1.033"
    assert any("33.62" in note for note in over.notes) and any("test split" in note for note in over.notes) and any("never F1" in note for note in over.notes)
    assert row_of(complete, "PGMF-Student")["Acc-7"] == "-" and row_of(complete, "PGMF-Student")["MAE"] == "0.746"
    assert not any("PGMF-Student (test" in row[0] for row in over.rows), "one rate is no mean over ten"
    assert row_of(complete, "ours: PGMF-Student")["Acc-2 Has0"] == "50.00" and "1 seed)" in row_of(complete, "ours: PGMF-Student")["model"]


def test_what_differs_in_protocol_is_never_averaged(tmp_path):
    write_report(tmp_path / "a.json", base=0.5)
    write_report(tmp_path / "b.json", base=0.6, protocol="lnln", seed=1112, about="LNLN's")
    write_report(tmp_path / "c.json", base=0.6, split="valid", seed=1113)
    write_report(tmp_path / "d.json", "sims", seed=1114)
    groups = group(read_reports([tmp_path / f"{name}.json" for name in "abcd"]))
    assert len(groups) == 4 and all(len(g.reports) == 1 for g in groups)


def test_the_command_writes_every_format(tmp_path, capsys):
    for seed in (1, 2):
        write_report(tmp_path / "runs" / f"seed-{seed}" / "report.json", "sims", "pgmf-teacher", seed, base=0.4 + 0.1 * seed)
    assert main(["table", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert text in capsys.readouterr().out and "| PGLH | 74.36 | 74.84 |" in text and "69.18 for LNLN" in text
    widths = {line.count("|") for line in text.split("###")[1].splitlines() if line.startswith("|")}
    assert widths == {8}
    latex = (tmp_path / "out" / "table.tex").read_text()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4 and r"55.00 $\pm$ 7.07" in latex and "%" not in latex.replace(r"\%", "") and "_" not in latex.replace(r"\_", "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    ours = next(row for row in rows if row["table"] == "SIMS, nothing missing" and "ours" in row["row"] and row["column"] == "Acc-2")
    assert (ours["mean"], ours["deviation"]) == ("55.00", "7.07")
    assert len([row for row in rows if row["row"] == "LNLN"]) == len(COLUMNS["sims"]) and next(row for row in rows if row["row"] == "LNLN")["deviation"] == ""
    for metric in ("mae", "acc2"):
        assert (tmp_path / "out" / f"sims-{metric}.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_printed_as_the_field_prints_them():
    assert (shown("acc2", 71.899), shown("mae", 1.0334), shown("corr", 0.5, 0.01), shown("f1", None), shown("corr", float("nan"))) == ("71.90", "1.033", "0.500 ± 0.010", "-", "-")


@pytest.mark.parametrize("content, words", [(None, "no file"), ("{", "no report"), ("[]", "no report"), ('{"dataset": "mosi"}', "no report"), ('{"dataset": "imdb", "rates": [1]}', "no report")])
def test_what_is_no_report_is_refused(tmp_path, capsys, content, words):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    assert main(["table", str(path), "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


def test_a_run_counted_twice_or_no_run_is_refused(tmp_path, capsys):
    path = write_report(tmp_path / "a" / "report.json")
    assert main(["table", str(path), str(tmp_path), "--out", str(tmp_path / "out")]) == 2 and "one training seed (1111)" in capsys.readouterr().err
    assert main(["table", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["table", str(tmp_path / "empty"), "--out", str(tmp_path)]) == 2 and "no report*.json" in capsys.readouterr().err


def test_learning_curves_of_any_run(tmp_path):
    write_curves(tmp_path, "face", [{"epoch": 1, "loss": 2.0, "score": 0.1}, {"epoch": 2, "loss": 1.0, "score": 0.2, "mae@0.0": 0.7}])
    with open(tmp_path / "curves.csv", newline="") as file:
        assert list(csv.reader(file)) == [["epoch", "loss", "score", "mae@0.0"], ["1", "2.0", "0.1", ""], ["2", "1.0", "0.2", "0.7"]]
    first = (tmp_path / "curves.png").read_bytes()
    write_curves(tmp_path, "face", [{"epoch": 1, "loss": 2.0, "score": 0.1}, {"epoch": 2, "loss": 1.0, "score": 0.2, "mae@0.0": 0.7}])
    assert first.startswith(b"\x89PNG") and first == (tmp_path / "curves.png").read_bytes()


def test_every_data_set_has_its_tables(tmp_path):
    for dataset in COLUMNS:
        write_report(tmp_path / f"{dataset}.json", dataset)
    tables = tables_of(*sorted(tmp_path.glob("*.json")))
    assert len(tables) == 12 and all(len(row) == len(table.columns) for table in tables.values() for row in table.rows)
    assert len(tables["MOSEI, means over r = 0 ... 0.9"].rows) == len(printed("over rates", "mosei")) + 2

"""The papers' ablation tables: rows and settings, the printed figures beside ours, and a table that is cut off and goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msademo.models.pgmf import PAPER, PGMF, paper_config
from msademo.models.spro import SPROConfig
from tests.pickle_support import write_mmsa
from tests.test_pickled import PGMF_SMALL
from train import pickled, spro_ablation
from train.__main__ import main
from train.ablation import ROWS, make_table
from train.papers import ABLATIONS, printed, printed_ablation
from train.recipes import read_recipe

SMALL = ["batch=8", "draws=1", "valid_rates=0", "model.width=8", "model.heads=2", "model.feed_forward=8"]


@pytest.fixture(scope="module")
def mosi(tmp_path_factory):
    return write_mmsa(tmp_path_factory.mktemp("mosi") / "unaligned_9.pkl", counts=(8, 4, 4))


def command(table, pickle, out, *more):
    small = SMALL + (PGMF_SMALL if table.startswith("pgmf") else [])
    return ["ablation", "--table", table, "--config", "mosi", "--pickle", str(pickle), "--out", str(out), "--seeds", "1", "--epochs", "1", "--rates", "0", *more, "--set", *small]


def test_every_row_of_every_printed_table_is_there():
    assert ROWS.keys() == ABLATIONS.keys()
    for table, blocks in ABLATIONS.items():
        for dataset in blocks:
            assert list(printed_ablation(table, dataset)) == [line.name for line in ROWS[table]], (table, dataset)
    assert printed_ablation("pgmf-8", "mosi") == {} and printed_ablation("pglh-4", "mosi")["L_mask alone"] == {"acc2_has0": 71.81, "acc2_non0": 72.69}


def test_the_full_methods_row_is_the_papers_main_result():
    """A slip in copying would show: the tables print the same run again."""
    own = {row.name: row.figures for row in printed("over rates", "mosi")}["PGLH"]
    for table, name in (("pglh-3", "PGLH"), ("pglh-4", "L_global and L_mask"), ("pglh-8", "lambda_mask 0.05, lambda_global 0.05")):
        found = printed_ablation(table, "mosi")[name]
        assert {k for k in own if own[k] != found[k]} == {"acc5"}, "the erratum told below the tables"
    for dataset in ("mosi", "sims"):
        rows = {row.name: row.figures for row in printed("complete", dataset)}
        for table, names in (("pgmf-4", ("PGMF-Teacher", "PGMF-Student")), ("pgmf-5", ("PGMF-Student",))):
            for name in names:
                found = printed_ablation(table, dataset)[name]
                assert len(found) > 1 and all(rows[name][k] == v for k, v in found.items())
    student = {row.name: row.figures for row in printed("complete", "sims")}["PGMF-Student"]
    assert printed_ablation("pgmf-8", "sims")["alpha 60, beta 8"] == printed_ablation("pgmf-9", "sims")["PGMF-Student 0.82M"] == student


def test_settings_are_known_and_rows_differ():
    for table, lines in ROWS.items():
        if table == "spro-3":
            assert all(line.part in spro_ablation.ROWS for line in lines) and lines[-1].part == next(iter(spro_ablation.ROWS))
            configs = [SPROConfig(**spro_ablation.ROWS[line.part]) for line in lines]
        else:
            dataset = "mosi" if table.startswith("pglh") else "sims"
            configs = [(read_recipe(line.method, dataset, line.settings).build_config(line.method, PAPER[dataset]["dims"]), line.prompt) for line in lines]
        assert len({str(config) for config in configs}) == len(lines), table
    assert [line.name for line in ROWS["pglh-3"] if not line.settings] == ["PGLH"], "the row of the full method has no settings"


def test_the_sizes_of_pgmfs_table_9_come_out():
    for line in ROWS["pgmf-9"]:
        changes = {name.removeprefix("model."): int(value) for name, _, value in (setting.partition("=") for setting in line.settings)}
        config = paper_config("sims", False)
        model = PGMF(type(config)(**{**vars(config), **changes}))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(float(line.name.split()[1].removesuffix("M")), rel=0.1)


def test_a_table_is_written_and_goes_on_where_it_stopped(mosi, tmp_path, monkeypatch, capsys):
    trained, real = [], pickled.train_seed

    def train_seed(args, bundle, seed, folder):
        trained.append(folder.parent.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(args, bundle, seed, folder)

    monkeypatch.setattr(pickled, "train_seed", train_seed)
    assert main(command("pglh-3", mosi, tmp_path)) == 130 and trained == ["pglh-decoder_layers=0", "pglh-pcm2_prompts=0", "pglh-ubpf_prompts=0"]
    assert [row["row"] for row in json.loads((tmp_path / "pglh-3.json").read_text())["rows"]] == ["w/o PCM2-Decoder", "w/o PCM2-Prompt"], "what is done is written"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}
    monkeypatch.setattr(pickled, "train_seed", real)
    assert main(command("pglh-3", mosi, tmp_path)) == 0 and len(times) == 2 and all(path.stat().st_mtime_ns == time for path, time in times.items())
    found = json.loads((tmp_path / "pglh-3.json").read_text())
    assert [row["row"] for row in found["rows"]] == [line.name for line in ROWS["pglh-3"]] and found["rows"][2]["printed"]["mae"] == 1.059
    own = {row["row"]: row["ours"]["mae"]["mean"] for row in found["rows"]}
    assert len(set(own.values())) == 4 and all(np.isfinite(value) for value in own.values())
    text, latex = (tmp_path / "pglh-3.md").read_text(), (tmp_path / "pglh-3.tex").read_text()
    assert "| w/o UBPF, as printed | 69.30 | 71.23 |" in text and f"{own['PGLH']:.3f}" in text and "39.34 in its Tables" in text and "linear map" in text
    assert latex.count(r"\begin{tabular}") == 1 and "wrote" in capsys.readouterr().out


def test_students_learn_from_the_tables_own_teacher(mosi, tmp_path):
    assert main(command("pgmf-4", mosi, tmp_path, "--text-encoder", "bundled")) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["pgmf-student", "pgmf-student-alpha=0-beta=0", "pgmf-teacher", "pgmf-teacher-without-prompt"]
    found = {row["row"]: row for row in json.loads((tmp_path / "pgmf-4.json").read_text())["rows"]}
    assert found["w/o prompt"]["runs"][0]["parameters"] < found["PGMF-Teacher"]["runs"][0]["parameters"] and found["PGMF-Student"]["printed"] == {"f1_has0": 83.68, "f1_non0": 85.5, "mae": 0.746}


def test_spros_table_takes_its_runs_from_the_ablation(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(spro_ablation, "one", lambda args, config, name, seed: asked.append((name, seed, args.epochs, config)) or {"fusion_accuracy": 0.7 + seed / 100, "fusion_weighted_f1": 0.6})
    assert main(["ablation", "--table", "spro-3", "--data", str(tmp_path), "--out", str(tmp_path), "--seeds", "1", "2", "--epochs", "3"]) == 0
    assert [name for name, seed, epochs, _ in asked if seed == 2 and epochs == 3] == [line.part for line in ROWS["spro-3"]]
    assert asked[2][3].visual_prompts is False and asked[0][3].captions == "none" and asked[4][3] == SPROConfig()
    assert "| Three-Stage Progressive, ours (2 seeds) | 71.50 ± 0.71 | 60.00 ± 0.00 |" in (tmp_path / "spro-3.md").read_text()


@pytest.mark.parametrize("words, told", [
    (["--table", "pglh-3", "--pickle", "x.pkl"], "Give --config"), (["--table", "spro-3", "--pickle", "x.pkl"], "give --data their folder"),
    (["--table", "pglh-3", "--config", "mosi", "--pickle", "x.pkl", "--without-prompt"], "its own row without a prompt"),
    (["--table", "spro-3", "--data", "x", "--set", "ema=0.5"], "differ in the model alone"), (["--table", "pglh-3", "--config", "mosi", "--pickle", "x.pkl", "--set", "epocs=1"], "nearest is 'epochs'"),
])
def test_what_makes_no_table_is_one_sentence(words, told, capsys):
    assert main(["ablation", *words]) == 2
    message = capsys.readouterr().err
    assert told in message and message.count("\n") == 1


def test_a_row_that_is_not_printed_is_shown_alone():
    table = make_table("pgmf-8", "mosi", ("mae", "corr"), {"alpha 60, beta 8": [{"mae": 0.5, "corr": 0.1, "parameters": 2_000_000}]}, ())
    assert table.rows == (("alpha 60, beta 8, ours (1 seed)", "0.500", "0.100", "2.00 M"),) and "does not print for mosi" in table.caption

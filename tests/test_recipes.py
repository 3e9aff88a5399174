"""The papers' configurations, their overrides, SIMS's metrics, and the papers' tables: arithmetic and shape of what is copied."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from msademo.errors import InputError
from msademo.metrics import sims_metrics
from msademo.models.pglh import PGLHConfig
from msademo.models.pgmf import PAPER, paper_config
from msademo.models.spro import SPROConfig
from train.__main__ import main
from train.papers import COLUMNS, ERRATA, SOURCES, printed, printed_by_rate
from train.recipes import CONFIGS, FOLDER, LIMITS, POSTS, read_recipe
from train.spro_recipe import add_arguments, recipe_of
from train.spro_task import SPROSettings

METHODS, SETS = ("pglh", "pgmf-teacher", "pgmf-student"), ("mosi", "mosei", "sims")
ALL = list(itertools.product(METHODS, SETS))


def test_there_is_a_file_for_every_method_and_data_set_and_no_other():
    others = [*itertools.product((*METHODS, "baseline"), ("own",)), *itertools.product(("spro",), POSTS)]
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{method}-{dataset}.toml" for method, dataset in [*ALL, *others])
    assert set(SETS) < set(LIMITS) and {method for method, _ in [*ALL, *others]} == set(CONFIGS)


@pytest.mark.parametrize("method, dataset", ALL)
def test_configurations_hold_the_papers_values(method, dataset):
    recipe = read_recipe(method, dataset)
    assert recipe.dataset == dataset and recipe.epochs == 200 and recipe.batch == 64 and recipe.seeds[:3] == (1111, 1112, 1113)
    if method == "pglh":
        assert recipe.highest == 0.9 and recipe.draws == 10 and len(recipe.seeds) == 3
        assert recipe.build_config(method, PAPER[dataset]["dims"]) == PGLHConfig(dims=PAPER[dataset]["dims"], lambda_mask=0.05, lambda_global=0.05, lambda_sp=1.0)
        return
    teacher = method == "pgmf-teacher"
    found, wanted = recipe.build_config(method, PAPER[dataset]["dims"]), paper_config(dataset, teacher)
    assert (replace(found, alpha=wanted.alpha, beta=wanted.beta) if teacher else found) == wanted      # a teacher has no use for alpha and beta
    assert recipe.lr == {"mosi": 1e-4, "mosei": 2e-4, "sims": 1e-4 if teacher else 2e-4}[dataset] and len(recipe.seeds) == 5
    assert recipe.highest == ({"mosi": 0.5, "mosei": 0.5, "sims": 0.7}[dataset] if teacher else 0.0)


def test_overrides_reach_every_kind_of_setting():
    recipe = read_recipe("pgmf-student", "mosi", ["epochs=3", "lr=2e-3", "seeds=7,8", "valid_rates=0,0.5", "model.width=32", "model.alpha=0", "model.delta_from=values",
                                                  "model.lengths.text=39"])
    assert (recipe.epochs, recipe.lr, recipe.seeds, recipe.valid_rates) == (3, 2e-3, (7, 8), (0.0, 0.5))
    config = recipe.build_config("pgmf-student", PAPER["mosi"]["dims"])
    assert (config.width, config.alpha, config.delta_from) == (32, 0.0, "values") and config.lengths == {"text": 39, "audio": 375, "vision": 500} and not config.guided
    assert read_recipe("pgmf-student", "mosi", ["model.lengths=none"]).build_config("pgmf-student", PAPER["mosi"]["dims"]).lengths is None
    assert read_recipe("pglh", "sims", ["model.decoder_in_prediction=true"]).model["decoder_in_prediction"] is True


@pytest.mark.parametrize("override, words", [
    ("epocs=3", ("'epocs'", "nearest is 'epochs'")), ("model.widht=3", ("'model.widht'", "nearest is 'model.width'")), ("model.dims=3", ("model.dims", "nearest")),
    ("width=3", ("'width'", "nearest")), ("model.guided=true", ("model.guided",)), ("epochs", ("NAME=VALUE",)), ("epochs=2.5", ("whole number", "'2.5'")),
    ("lr=fast", ("lr cannot be 'fast'", "a number")), ("seeds=1,1", ("seeds 1, 1",)), ("seeds=", ("numbers with commas",)), ("model.decoder_in_prediction=maybe", ("true or false",)),
    ("highest=2", ("[0, 1]",)), ("epochs=0", ("epochs",)), ("dataset=mosy", ("'mosy'", "nearest is 'mosi'")), ("model.width=0", ("PGLH cannot be built",)), ("lr=inf", ("lr",)),
    ("batch=0", ("batch",)), ("model.lengths.text=4", ("model.lengths.text",)),
])
def test_what_cannot_be_set_is_refused_with_the_nearest_known_name(override, words):
    with pytest.raises(InputError) as refused:
        read_recipe("pglh", "mosi", [override])
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_files_of_ones_own(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('dataset = "sims"\nepochs = 2\nlr = 1\n[model]\nwidth = 8\nheads = 2\n')
    assert read_recipe("pglh", str(own)).build_config("pglh", PAPER["sims"]["dims"]).width == 8
    for text, words in (("dataset = 'sims'\nlr = 1\n", "lacks 'epochs'"), ("dataset = ", "no TOML"), ("model = 3\n", r"\[model\]"), ("dataset = 'sims'\nepochs = 'x'\nlr = 1\n", "whole number"),
                        ("dataset = 'sims'\nepohcs = 1\n", "nearest is 'epochs'")):
        own.write_text(text)
        with pytest.raises(InputError, match=words):
            read_recipe("pglh", str(own))
    with pytest.raises(InputError, match="nearest is 'mosi'"):
        read_recipe("pglh", "mossi")
    with pytest.raises(InputError, match="no configuration"):
        read_recipe("pglh", str(tmp_path / "none.toml"))


@pytest.mark.parametrize("dataset", POSTS)
def test_spros_configurations_hold_the_papers_values_where_it_has_any(dataset):
    recipe = read_recipe("spro", f"spro-{dataset}")
    config = recipe.build_config("spro", {})
    assert recipe == read_recipe("spro", dataset) and recipe.dataset == dataset
    assert (config.prompts, config.temperature, config.lambda_cap, config.captions) == (16, 0.07, 0.25, "three") and config.lambda_av == config.lambda_at == 1
    assert config == SPROConfig(), "the bundled backbone's own values are the model's defaults"
    assert (recipe.epochs, recipe.lr, recipe.settings) == (5, 8e-5, SPROSettings())


def test_spros_options_and_overrides_change_its_file(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = ["--config", "spro-mvsa-single", "--data", "x", "--epochs", "3", "--backbone", "open_clip:ViT-B-32:openai", "--stages", "single", "--seed", "7"]
    recipe = recipe_of(parser.parse_args([*asked, "--set", "model.ramp=15", "model.stage_starts=0,5,10", "highest=0.5"]))
    config = recipe.build_config("spro", {})
    assert (recipe.epochs, recipe.seeds, recipe.lr, recipe.settings.highest) == (3, (7,), 8e-5, 0.5)
    assert (config.backbone, config.captions, config.ramp, config.stage_starts) == ("open_clip:ViT-B-32:openai", "single", 15, (0, 5, 10))
    for wrong, words in ((["model.promts=3"], "nearest is 'model.prompts'"), (["model.image_weight=1"], "'model.image_weight'"), (["draws=3"], "'draws'"), (["batch=1"], "two posts"),
                         (["model.stage_starts=0,0,1"], "one after the other"), (["dataset=mosi"], "'mosi'")):
        with pytest.raises(InputError, match=words):
            recipe_of(parser.parse_args([*asked, "--set", *wrong]))
    assert main(["spro", "--config", "mvsa-singel", "--data", "x"]) == 2 and "nearest is 'mvsa-single'" in capsys.readouterr().err


def literal_sims(predicted, truth):
    """MMSA's rule, a loop over bins, in the arrays' own precision."""
    predicted, truth = np.clip(predicted, -1.0, 1.0), np.clip(truth, -1.0, 1.0)

    def classes(values, edges):
        out = values.copy()
        for number, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
            out[(values > low) & (values <= high)] = number
        return out

    found = {}
    for name, edges in (("acc2", [-1.01, 0.0, 1.01]), ("acc3", [-1.01, -0.1, 0.1, 1.01]), ("acc5", [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01])):
        found[name] = np.sum(classes(predicted, edges) == classes(truth, edges)) / len(truth)
    two = [-1.01, 0.0, 1.01]
    return {**found, "f1": f1_score(classes(truth, two), classes(predicted, two), average="weighted"), "mae": np.mean(np.abs(predicted - truth)), "corr": np.corrcoef(predicted, truth)[0][1]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_metrics_are_mmsas(dtype):
    rng = np.random.default_rng(0)
    truth = (rng.integers(-5, 6, 400) / 5).astype(dtype)
    predicted = np.where(rng.random(400) < 0.5, truth + rng.normal(0, 0.3, 400), rng.choice([-0.7, -0.1, 0.0, 0.1, 0.7, 1.4], 400)).astype(dtype)
    found, wanted = sims_metrics(predicted, truth), literal_sims(predicted, truth)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name] == pytest.approx(wanted[name], abs=1e-6 if name in ("mae", "corr") else 1e-12), name


def test_sims_metrics_by_hand():
    truth, predicted = np.array([0.0, 0.2, -0.2, 1.0]), np.array([0.05, -0.05, 0.0, 3.0])
    found = sims_metrics(predicted, truth)
    # Zero is negative: predicted classes 1, 0, 0, 1 against 0, 1, 0, 1. Three classes: 1, 1, 1, 2 against 1, 2, 0, 2. 3.0 is clipped to 1.
    assert found["acc2"] == 0.5 and found["acc3"] == 0.5 and found["mae"] == pytest.approx((0.05 + 0.25 + 0.2 + 0) / 4)
    assert sims_metrics(np.zeros(3), np.array([0.2, 0.4, -1.0]))["corr"] == 0.0
    for bad in (np.array([np.nan, 0.0, 0.0, 0.0]), np.zeros(3)):
        with pytest.raises(ValueError):
            sims_metrics(bad, truth)


@pytest.mark.parametrize("dataset", COLUMNS)
def test_pglhs_means_are_those_of_its_rows(dataset):
    """A slip in copying Tables 5 to 7 or 1 and 2 would show here: the printed means follow from the printed rows."""
    rows = printed_by_rate(dataset)
    assert [float(row.name) for row in rows] == [i / 10 for i in range(10)]
    own = next(row for row in printed("over rates", dataset) if row.name == "PGLH")
    for name in COLUMNS[dataset]:
        assert np.mean([row.figures[name] for row in rows]) == pytest.approx(own.figures[name], abs=6e-4 if name in ("mae", "corr") else 6e-3), name


def test_every_printed_table_has_its_source_and_errata():
    for kind, dataset in itertools.product(SOURCES, COLUMNS):
        names = [row.name for row in printed(kind, dataset)]
        assert len(set(names)) == len(names) >= 8 and SOURCES[kind][dataset] and ERRATA[kind, dataset]
    by_name = {row.name: row.figures for row in printed("over rates", "mosei")}
    repeated = {row.name: row.figures for row in printed("over rates", "mosi")}["TETFN"]
    assert all(by_name["TETFN"][name] == repeated[name] for name in ("acc2_has0", "f1_non0", "acc7", "mae")), "the erratum is as the paper prints it"

"""MMSA's models beside ours: what they are given, what is read back from them, and the tables; the runner itself where an interpreter has MMSA."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import benchmarks.peers.__main__ as peers
from benchmarks.peers import data as peer_data
from benchmarks.peers import ours
from benchmarks.peers.data import Source, cases_of, write_corpus, write_measured
from benchmarks.peers.report import by_transcript, differences, markdown, means_of, measure, over_seeds, read_predictions
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.features.bundle import token_masks
from msademo.features.text import load_text_encoder
from tests.pickle_support import loaded_once
from train import evaluate
from train.export_mmsa import ratios_of

CASES = [(0.0, 0, "r0-d0.npz"), (0.5, 0, "r0.5-d0.npz"), (0.5, 1, "r0.5-d1.npz")]


@pytest.fixture(scope="module", autouse=True)
def one_encoder():
    with loaded_once(load_text_encoder, peers) as loader:
        yield loader


@pytest.fixture(scope="module")
def source(data, checkpoints, tmp_path_factory):
    return Source(data, checkpoints / "text.safetensors", checkpoints / "face.safetensors", tmp_path_factory.mktemp("cache"), ("mosi",), signs="all")


@pytest.fixture(scope="module")
def measured(source, one_encoder, tmp_path_factory):
    """The bench and the folder of the measured split."""
    bench, folder = source.bench(one_encoder(source.text), "valid"), tmp_path_factory.mktemp("measured")
    write_measured(folder, bench, [0.0, 0.5], 2, say=lambda text: None)
    return bench, folder


@pytest.fixture(scope="module")
def side():
    """The part that runs beside MMSA, but for MMSA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(peers.RUNNER.parent)
        yield importlib.import_module("batches"), importlib.import_module("models")


def test_every_clip_has_a_rate_of_its_own_or_all_one():
    drawn = ratios_of(200, None, seed=3)
    rates = np.array([ratios["audio"] for ratios in drawn])
    assert all(len(set(ratios.values())) == 1 for ratios in drawn) and drawn == ratios_of(200, None, seed=3)
    assert 0 <= rates.min() < 0.1 and 0.8 < rates.max() <= 0.9 and abs(rates.mean() - 0.45) < 0.05
    assert ratios_of(2, 0.3, ["vision"]) == [{"text": 0.3, "audio": 0.3, "vision": 1.0}] * 2


def test_the_measured_split_lies_under_the_masks_of_evaluate(measured, tmp_path):
    bench, folder = measured
    assert list(cases_of([0.0, 0.5], 2)) == CASES and {path.name for path in folder.iterdir()} == {"base.npz", *(name for *_, name in CASES)}
    base, half = (dict(np.load(folder / name)) for name in ("base.npz", "r0.5-d1.npz"))
    assert np.array_equal(base["labels"], bench.truth.astype(np.float32)) and base["audio"].shape[:2] == (evaluate.COMPOSITIONS, 12)
    for composition, i in ((0, 3), (4, 7)):
        clip = bench.clips[composition][i]
        masks = token_masks(clip, bench.masks(bench.clips[composition], dict.fromkeys(MODALITIES, 0.5), 1)[i])
        for m in ("audio", "vision"):
            length = base[f"{m}_lengths"][composition, i]
            assert np.array_equal(base[m][composition, i, :length], clip.track(m).values) and (base[m][composition, i, length:] == 0).all()
            assert np.array_equal(half[f"{m}_missing"][composition, i, :length], masks[m]) and not half[f"{m}_missing"][composition, i, length:].any()
        length = half["text_lengths"][i]
        assert np.array_equal(half["text_missing"][i, :length], masks["text"])
        np.testing.assert_allclose(half["text"][i, :length], bench.encoder.encode([clip.tokens], [masks["text"]])[0].numpy(), atol=1e-4)
    before = (folder / "r0-d0.npz").stat().st_mtime_ns
    write_measured(folder, bench, [0.0], 2, say=pytest.fail)
    assert (folder / "r0-d0.npz").stat().st_mtime_ns == before


def test_ours_are_measured_as_evaluate_measures_them(measured, source, checkpoints, tmp_path, monkeypatch):
    bench, folder = measured
    monkeypatch.setattr(evaluate, "DRAWS", 2)
    fusion = ours.load("pglh", checkpoints / "pglh.safetensors", source)
    ours.write_predictions(fusion, bench, folder, tmp_path, CASES, "pglh", say=lambda text: None)
    rows = measure(tmp_path, CASES, bench.truth, evaluate.COMPOSITIONS)
    for row in rows:
        wanted = bench.measure(fusion, [dict.fromkeys(MODALITIES, row["rate"])])[0]
        assert row["mae"] == pytest.approx(wanted["mae"], abs=1e-5) and row["acc2_non0"] == pytest.approx(wanted["acc2_non0"], abs=1e-6)
    means = means_of(by_transcript(tmp_path, CASES, bench.truth, evaluate.COMPOSITIONS), bench.truth, np.ones((1, 12)))[0]
    assert means == pytest.approx([np.mean([row[name] for row in rows]) for name in ("acc2_non0", "acc2_balanced", "mae")])
    teacher = ours.load("pgmf-teacher", checkpoints / ours.TEACHER, source)
    student = ours.load("pgmf-student", checkpoints / ours.SHIPPED["pgmf-student"], source)
    for model, of in ((fusion, None), (student, teacher)):
        found = ours.timing(model, of, bench, folder, CASES[-1], folder / CASES[0][2], 4)
        assert found["step"] > 0 and found["forward"] > 0 and found["parameters"] == sum(p.numel() for p in model.model.parameters())


@pytest.fixture(scope="module")
def corpus(source, one_encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "masked.pkl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_data, "TEXT_STEPS", 6)
        write_corpus(path, source, "masked", one_encoder(source.text), say=lambda text: None)
    return path


def test_the_training_corpus_and_what_a_batch_of_it_is(corpus, side):
    batches, models = side
    content = pickle.loads(corpus.read_bytes())
    assert content["about"]["signs"] == "all" and len(content["train"]["id"]) == 12 and len(content["valid"]["id"]) == 12 * 3 * 4 and set(content) == {"train", "valid", "about"}
    shares = [content["valid"]["audio_missing"][36 * i:36 * i + 36].sum() / sum(content["valid"]["audio_lengths"][36 * i:36 * i + 36]) for i in range(4)]
    assert shares == pytest.approx([0.0, 0.3, 0.6, 0.9], abs=0.07)
    train = batches.read_pickle(corpus)["train"]
    statistics = batches.statistics_of(train)
    steps = {m: train[m].shape[1] + 2 for m in MODALITIES}
    rows = np.arange(12)
    plain, pooled, packed = (batches.Clips(name, train, *statistics, steps).batch(rows) for name in ("mult", "tfn", "tfr_net"))
    for m in MODALITIES:
        there = (np.arange(steps[m])[None] < np.asarray(train[f"{m}_lengths"])[:, None]) & ~np.pad(train[f"{m}_missing"], ((0, 0), (0, 2)))
        values = (models.PassThrough()(packed["text_m"]) if m == "text" else packed[f"{m}_m"]).numpy()
        for i, length in enumerate(train[f"{m}_lengths"]):              # who reads the last step gets the padding in front
            assert np.array_equal(plain[m][i, steps[m] - length:].numpy(), values[i, :length]) and (plain[m][i, :steps[m] - length] == 0).all()
        assert values.shape[1] == steps[m] and (values[~there] == 0).all() and abs(values[there].mean()) < 0.05 and np.isfinite(values).all()
        if m == "audio":
            mean = np.stack([values[i][there[i]].mean(0) if there[i].any() else np.zeros(values.shape[2]) for i in rows])
            np.testing.assert_allclose(pooled[m][:, 0].numpy(), mean, atol=1e-4)
            assert np.array_equal(packed["audio_missing_mask"].numpy() > 0, there)
        if m == "text":
            assert np.array_equal(packed["text_m"][:, 0].numpy() > 0, there)
            assert packed["text"][:, 1].sum(1).tolist() == np.asarray(train["text_lengths"]).tolist()
            first = models.MeanPlace()(packed["text_m"])[:, 0]
            np.testing.assert_allclose(first[0].numpy(), values[0][there[0]].mean(0), atol=1e-4)


def test_peers_get_the_clips_of_our_trainers_epochs_unless_told(source, one_encoder, tmp_path):
    balanced = replace(source, signs=peers.arguments().parse_args(["--data", "d", "--json", "j", "--markdown", "m"]).signs)
    assert balanced.signs == "balanced" and balanced.mark != source.mark
    write_corpus(tmp_path / "c.pkl", balanced, "masked", one_encoder(source.text), say=lambda text: None)
    content = pickle.loads((tmp_path / "c.pkl").read_bytes())
    scores = content["train"]["regression_labels"]
    assert content["about"]["signs"] == "balanced" and len(scores) > 12 and (scores > 0).sum() == (scores < 0).sum()


def test_batches_cover_every_clip_and_texts_keep_their_end(measured, corpus, side):
    batches, _ = side
    bench, folder = measured
    train = batches.read_pickle(corpus)["train"]
    statistics, steps = batches.statistics_of(train), {m: train[m].shape[1] for m in MODALITIES}
    clips = batches.Clips("mult", train, *statistics, steps)
    assert [len(batch["index"]) for batch in batches.Loader(clips, 5)] == [5, 5, 2]
    loader = batches.Loader(clips, 11, shuffle=True, epochs=1)
    assert [len(batch["index"]) for batch in loader] == [11] and len(loader) == 1            # the last would be one clip alone
    with pytest.raises(batches.Enough):
        next(iter(loader))
    base, case = (dict(np.load(folder / name)) for name in ("base.npz", "r0-d0.npz"))
    cut = batches.measured_clips("mult", base, case, 1, 4, *statistics, {**steps, "text": 4}).batch(np.arange(12))
    place = case["text_lengths"][0] - 1
    assert place > 4
    expected = (np.stack([*case["text"][0, :3], case["text"][0, place]]) - statistics[0]["text"]) / statistics[1]["text"]
    np.testing.assert_allclose(cut["text"][0].numpy(), expected, atol=1e-4)


def trained_as_mmsa_does(side, corpus, folder, stop_after=None):
    """A trainer of MMSA's kind: its loop's state in local variables, Adam and a plateau made inside. Stopped within the epoch after stop_after; -> weights, losses."""
    batches, _ = side
    train = batches.read_pickle(corpus)["train"]
    statistics, steps = batches.statistics_of(train), {m: train[m].shape[1] for m in MODALITIES}
    torch.manual_seed(3)
    clips = batches.Clips("tfn", train, *statistics, steps)
    model = torch.nn.Sequential(torch.nn.Linear(clips.batch(np.arange(2))["audio"].shape[-1], 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    loss_of = lambda batch: (model(batch["audio"][:, 0]) - batch["labels"]["M"]).abs().mean()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", torch.optim.Adam)                     # put back afterwards
        memory = importlib.import_module("resume").Memory(folder, model)
        loader, losses = batches.Loader(clips, 5, shuffle=True, memory=memory), []
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        for epoch in range(5):
            model.train()
            for batch in loader:
                optimizer.zero_grad(), loss_of(batch).backward(), optimizer.step()
                if epoch == stop_after:
                    return None
            model.eval()
            losses.append(loss_of(clips.batch(np.arange(12))).item())
            plateau.step(losses[-1])
    assert len(list(folder.glob("epoch-*.pth"))) == 5 and memory.seconds() > 0
    memory.forget()
    assert not list(folder.iterdir())
    return model.state_dict(), losses


def test_a_stopped_training_ends_as_an_undisturbed_one(corpus, side, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    weights, losses = trained_as_mmsa_does(side, corpus, whole)
    assert trained_as_mmsa_does(side, corpus, parts, stop_after=1) is trained_as_mmsa_does(side, corpus, parts, stop_after=3) is None
    again, same = trained_as_mmsa_does(side, corpus, parts)
    assert same == losses and len(set(losses)) == 5 and all(torch.equal(again[key], weights[key]) for key in weights)


@pytest.mark.parametrize("content, words", [(None, "holds no predictions"), ({"scores": np.zeros((5, 3))}, "should hold 5 x 12"), ({"scores": np.full((5, 12), np.nan)}, "finite"),
                                            ({"scores": np.array([[object()] * 12] * 5)}, "holds no predictions"), ({"other": np.zeros(3)}, "holds no predictions")])
def test_predictions_are_numbers_or_refused(tmp_path, content, words):
    path = tmp_path / "r0-d0.npz"
    path.write_bytes(b"PK\x03\x04 cut off") if content is None else np.savez(path, **content)
    with pytest.raises(InputError, match=words):
        read_predictions(path, 5, 12)


def test_means_deviations_and_tables():
    rows = lambda *maes: [{"rate": rate, "acc2_non0": 0.5 + rate / 2, "acc2_balanced": 0.6, "mae": mae, "corr": 0.25} for rate, mae in zip((0.0, 0.5), maes)]
    rates, mean = over_seeds({"1": rows(1.0, 1.2), "2": rows(1.2, 1.6)})
    assert rates[1]["mae"]["mean"] == pytest.approx(1.4) and rates[1]["mae"]["deviation"] == pytest.approx(np.sqrt(0.08))
    assert mean["mae"]["mean"] == pytest.approx(1.25) and over_seeds({"1": rows(1.0, 1.2)})[1]["mae"]["deviation"] is None
    line = {"model": "TFN", "training": "masked", "settings": "mosei", "seeds": {"1": [], "2": []}, "rates": rates, "average": mean,
            "timing": {"step": 0.0124, "forward": 0.002, "parameters": 12345}}
    line["transcripts"], truth = {"error": [1.0, 1.5, 0.5] * 4, "sign": [0.5, 0.5, 1.0] * 4}, [-1.0, 2.0, 0.0] * 4
    own = line | {"model": "PGLH", "transcripts": {"error": [0.9, 1.4, 0.4] * 4, "sign": [0.75, 0.75, 0.0] * 4}}
    assert "| TFN | masked | -25.0 [-25.0, -25.0] | -25.0 [-25.0, -25.0] | +0.100 [+0.100, +0.100] |" in markdown({"about": "About.", "models": [line, own], "truth": truth, "failed": []})
    text = markdown({"about": "About.", "models": [line], "truth": truth, "failed": [{"label": "mult-masked-mosi-1", "reason": "no memory"}]})
    assert "| TFN | masked | mosei | 2 | 12,345 | 12 | 2 | 62.5 ± 0.0 | 60.0 ± 0.0 | 1.250 ± 0.212 | 0.250 ± 0.000 | 50.0 ± 0.0 / 60.0 ± 0.0 / 1.100 ± 0.141 / 0.250 ± 0.000 |" in text
    assert "| TFN, masked | 1.100 ± 0.141 | 1.400 ± 0.283 |" in text and "mult-masked-mosi-1 gave nothing: no memory" in text


def test_differences_are_of_the_same_transcripts():
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat([-1.0, 0.0, 2.0], [40, 20, 60]))
    hard = {"error": rng.uniform(0, 2, 120), "sign": rng.uniform(0, 1, 120)}                       # how hard a transcript is, for both models
    better = {"error": hard["error"] - 0.1 + rng.normal(0, 0.01, 120), "sign": hard["sign"] + 0.05 * (truth != 0)}
    value, ends = differences(better, hard, truth)
    assert value == pytest.approx([0.05, 0.05, -0.1], abs=0.005) and (ends[0] <= value).all() and (value <= ends[1]).all() and np.ptp(ends, axis=0).max() < 0.01
    other = {"error": rng.uniform(0, 2, 120), "sign": rng.uniform(0, 1, 120)}
    value, ends = differences(other, hard, truth)
    assert np.ptp(ends, axis=0).min() > 0.1 and value == pytest.approx(-differences(hard, other, truth)[0])


@pytest.fixture
def options(source, checkpoints, tmp_path):
    return ["--data", str(source.data), "--checkpoints", str(checkpoints), "--text", str(source.text), "--face", str(source.face), "--cache", str(source.cache), "--corpora", "mosi",
            "--rates", "0,0.5", "--draws", "1", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "peers.json"), "--markdown", str(tmp_path / "peers.md")]


def test_the_command_goes_on_and_one_that_fails_stops_no_other(options, tmp_path, capsys):
    wanted = [*options, "--models", "pglh", "pgmf-student", "--seeds", "1111"]
    assert peers.main(wanted) == 0
    report = json.loads((tmp_path / "peers.json").read_text())
    assert [line["model"] for line in report["models"]] == ["PGLH", "PGMF student"] and report["failed"] == [] and report["n"] == 12
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")}
    assert len(made) == 3 + 2 * 2
    assert peers.main([*wanted[:-1], "1111", "7"]) == 0                          # the untrained checkpoints do not say how they were trained
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")}
    again = json.loads((tmp_path / "peers.json").read_text())
    assert again["models"] == report["models"] and [failure["label"] for failure in again["failed"]] == ["pglh-masked-own-7", "pgmf-student-masked-own-7"]


@pytest.mark.parametrize("more, words", [(["--python", "/nowhere/python"], "There is no interpreter"), (["--python", sys.executable], "has no MMSA"),
                                         (["--draws", "0", "--models", "pglh"], "--draws"), (["--rates", "2", "--models", "pglh"], "--rates|rates '2'"),
                                         (["--rates", "0.5", "--models", "pglh"], "--rates must have 0"),
                                         (["--compositions", "0", "--models", "pglh"], "--compositions")])
def test_what_cannot_be_compared_is_one_sentence(options, tmp_path, capsys, more, words):
    assert peers.main([*options, *more]) == 2
    message = capsys.readouterr().err
    assert any(word in message for word in words.split("|")) and message.count("\n") == 1 and not (tmp_path / "work").exists()


@pytest.mark.skipif("MSADEMO_MMSA_PYTHON" not in os.environ, reason="MSADEMO_MMSA_PYTHON names no interpreter with MMSA (benchmarks/peers/requirements.txt)")
def test_mmsas_models_train_and_are_measured(options, tmp_path):
    models = ["lf_dnn", "tfn", "lmf", "mfn", "mult", "self_mm", "tfr_net"]
    assert peers.main([*options, "--python", os.environ["MSADEMO_MMSA_PYTHON"], "--models", *models, "pglh", "--seeds", "1", "--trainings", "masked", "--settings", "mosi",
                       "--epochs", "2"]) == 0
    report = json.loads((tmp_path / "peers.json").read_text())
    lines = {line["model"]: line for line in report["models"]}
    assert set(lines) == {peers.TITLES[name] for name in models} and [failure["label"] for failure in report["failed"]] == ["pglh-masked-own-1"]
    for line in lines.values():
        assert line["trained"]["1"]["epochs"] <= 2 and line["timing"]["step"] > 0 and [row["rate"] for row in line["rates"]] == [0, 0.5]
        scores = read_predictions(next((tmp_path / "work").glob(f"{next(key for key in models if peers.TITLES[key] == line['model'])}-*/valid/r0.5-d0.npz")), 5, 12)
        assert np.ptp(scores) > 0

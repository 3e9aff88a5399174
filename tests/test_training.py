"""The trainers end to end on a tiny folder: preparation resumes, training resumes exactly after kill -9, evaluation adds up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from msademo.checkpoint import read_checkpoint
from msademo.errors import InputError
from msademo.features.text import load_text_encoder
from tests.conftest import ROOT
from train.__main__ import main
from train.compose import BROAD, CLOSE, FACE_POLARITY, VOICE_POLARITY, Composer, Composition, balanced_epoch, blurred
from train.data import Transcript, training_transcripts
from train.evaluate import parse_rates
from train.loop import Schedule, fit, learning_rate
from train.prepare import load_pool
from train.words import Masking, WordReader


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def train_command(name, data, encoders, cache, folder, epochs=3):
    return [name, "--data", str(data), "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors"),
            "--cache", str(cache), "--out", str(folder / f"{name}.safetensors"), "--work", str(folder / "work"), "--epochs", str(epochs)]


def alone(command):
    """A command line in a process of its own, on one thread: the same sums in the same order every time."""
    return dict(args=[sys.executable, "-m", "train", *command], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def trained(data, encoders, cache, tmp_path_factory):
    """An undisturbed run of PGLH."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run(**alone(train_command("pglh", data, encoders, cache, folder)), check=True, capture_output=True)
    return folder / "pglh.safetensors"


def test_preparation_goes_on_where_it_stopped_and_leaves_bad_files_out(data, encoders, tmp_path):
    broken = data / "voices" / "set" / "train-happy-0.wav"
    good = broken.read_bytes()
    said = []
    try:
        broken.write_bytes(b"no sound at all")
        pool = load_pool(data, "train", encoders / "face.safetensors", tmp_path, 1, said.append)
        assert len(pool.voices) == 11 and len(pool.faces) == 12
        assert any("train-happy-0.wav" in line for line in said), "the file left out is named"
        made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
        broken.write_bytes(good)
        assert len(load_pool(data, "train", encoders / "face.safetensors", tmp_path, 1, said.append).voices) == 12
        assert all(path.stat().st_mtime_ns == when for path, when in made.items()), "what was there is not made again"
    finally:
        broken.write_bytes(good)


def test_killed_run_resumes_to_the_same_weights(data, encoders, cache, trained, tmp_path):
    command = alone(train_command("pglh", data, encoders, cache, tmp_path))
    state = tmp_path / "work" / "state.pt"
    process = subprocess.Popen(**command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.is_file() and not (tmp_path / "pglh.safetensors").is_file(), "killed after an epoch and before the end"
    subprocess.run(**command, check=True, capture_output=True)
    undisturbed, resumed = read_checkpoint(trained).tensors, read_checkpoint(tmp_path / "pglh.safetensors").tensors
    assert undisturbed.keys() == resumed.keys()
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_a_state_of_another_run_is_refused(data, encoders, cache, trained, capsys):
    folder = trained.parent
    command = train_command("pglh", data, encoders, cache, folder) + ["--lr", "0.5"]
    assert main(command) == 2
    assert "other settings" in capsys.readouterr().err


def test_evaluation_reports_every_figure(data, encoders, cache, trained, tmp_path):
    out = tmp_path / "out.json"
    assert main(["evaluate", str(trained), "--data", str(data), "--split", "test", "--rates", "0,0.5", "--json", str(out),
                 "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors"), "--cache", str(cache)]) == 0
    report = json.loads(out.read_text())
    assert [row["rate"] for row in report["rates"]] == [0.0, 0.5] and report["n"] == 12
    wanted = {"acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc5", "acc7", "mae", "corr"}
    assert all(wanted <= row.keys() for row in [*report["rates"], report["average"], *report["text_only"], *report["absent"].values()])
    assert set(report["absent"]) == {"text", "audio", "vision", "audio+vision", "text+audio"}
    assert report["average"]["mae"] == pytest.approx(np.mean([row["mae"] for row in report["rates"]]))
    assert all(0 < report["recovery"][m]["error"] and 0 < report["recovery"][m]["mean_fill_error"] for m in ("audio", "vision"))
    # r = 0 with sound and picture away is the same case under two names.
    assert report["text_only"][0]["mae"] == pytest.approx(report["absent"]["audio+vision"]["mae"], abs=1e-6)


def test_face_checkpoint_is_no_clip_model(data, encoders, cache, tmp_path, capsys):
    assert main(["evaluate", str(encoders / "text.safetensors"), "--data", str(data), "--split", "test", "--json", str(tmp_path / "o.json"),
                 "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors")]) == 2
    assert "text model" in capsys.readouterr().err


@pytest.mark.parametrize("text, rates", [("0:0.9:0.1", [i / 10 for i in range(10)]), ("0,0.5", [0, 0.5]), ("0.3", [0.3])])
def test_rates(text, rates):
    assert parse_rates(text) == pytest.approx(rates)


@pytest.mark.parametrize("text", ["", "a:b:c", "0:1:0", "0,2", "nan", "0:0.9", "-1:0:0.5"])
def test_bad_rates_are_refused(text):
    with pytest.raises(InputError, match="rates"):
        parse_rates(text)


def test_composed_emotions_agree_as_often_as_said(data, encoders, cache):
    composer = Composer(load_pool(data, "train", encoders / "face.safetensors", cache, 1, lambda line: None))
    rng = np.random.default_rng(3)
    drawn = np.array([composer.polarity(2.0, rng) for _ in range(20_000)])
    assert [np.mean(drawn == p) for p in (1, 0, -1)] == pytest.approx([0.60, 0.25, 0.15], abs=0.015)
    neutral = np.array([composer.polarity(0.0, rng) for _ in range(20_000)])
    assert [np.mean(neutral == p) for p in (1, 0, -1)] == pytest.approx([0.20, 0.60, 0.20], abs=0.015)
    lengths = [len(composer.face(1.0, rng).values) for _ in range(300)]
    assert min(lengths) >= 10 and max(lengths) <= 60 and len(set(lengths)) > 30
    assert set(VOICE_POLARITY.values()) == set(FACE_POLARITY.values()) == {-1, 0, 1}


def test_strong_scores_prefer_strong_voices(data, encoders, cache):
    composer = Composer(load_pool(data, "train", encoders / "face.safetensors", cache, 1, lambda line: None))
    rng, positive = np.random.default_rng(4), composer.voice_of[1]
    strong = lambda score: np.mean([composer.pool.voice_strong[composer.pick(positive, composer.pool.voice_strong, score, rng)] for _ in range(2000)])
    assert strong(3.0) > 0.65 and strong(0.2) < 0.4


def test_an_epoch_has_as_many_positive_as_negative():
    rows = [Transcript(str(i), "mosei", ("a",), score) for i, score in enumerate([2.0] * 50 + [-1.0] * 20 + [0.0] * 30)]
    scores = np.array([rows[i].score for i in balanced_epoch(rows, np.random.default_rng(0))])
    assert (scores > 0).sum() == (scores < 0).sum() == 20 and 5 < (scores == 0).sum() < 25


def test_a_close_epoch_has_mosi_six_times_and_a_quarter_of_mosei():
    rows = [Transcript(str(i), corpus, ("a",), score) for corpus, often in (("mosi", 50), ("mosei", 2000)) for score in (2.0, -2.0) for i in range(often)]
    rows += [Transcript(str(i), "mosei", ("a",), 0.2) for i in range(1000)]
    drawn = np.bincount(balanced_epoch(rows, np.random.default_rng(0), CLOSE), minlength=len(rows))
    assert drawn[:100].max() == 6 and drawn[:100].mean() > 5.5
    assert 0.21 < drawn[2100:4100].mean() < 0.29 and drawn[100:].max() == 1, "the negative ones, of which none is left out"
    assert np.bincount(balanced_epoch(rows, np.random.default_rng(0)), minlength=len(rows))[2100:4100].min() == 1, "all of MOSEI's before"


def test_the_last_epochs_are_close(data, encoders, tmp_path, capsys):
    rows = training_transcripts(data, ("mosi", "mosei"))
    words = WordReader(load_text_encoder(encoders / "text.safetensors"), rows, Masking(), 7, tmp_path, "hash", close_from=1)
    mosi = lambda epoch: sum(rows[row].corpus == "mosi" for row in words.rows(epoch)) / len(words.rows(epoch))
    assert [words.mixture(epoch) for epoch in (0, 1, 2)] == [BROAD, CLOSE, CLOSE] and mosi(1) > mosi(0)
    words.epoch(1)
    assert [path.name for path in words.folder.iterdir()] == ["epoch-1-close.safetensors"], "another draw than a broad epoch's of the same number"
    assert main([*train_command("baseline", data, encoders, tmp_path, tmp_path), "--close-epochs", "4"]) == 2
    assert "not a part of 3 epochs" in capsys.readouterr().err


def test_a_clips_words_take_on_some_of_anothers_and_missing_ones_nothing():
    rng = np.random.default_rng(5)
    words = [torch.from_numpy(rng.normal(size=(length, 3)).astype(np.float32)).half() for length in (4, 6, 5)]
    gone = [np.array([False, True, False, False]), np.zeros(6, bool), np.ones(5, bool)]
    mean = np.array([0.5, 0.0, -0.5], np.float32)
    found = blurred(words, gone, mean, 0.5, np.random.default_rng(1))
    again = np.random.default_rng(1)
    shares, lenders = again.uniform(0, 0.5, 3), again.permutation(3)
    apart = [words[0][[0, 2, 3]].float().mean(0) - torch.from_numpy(mean), words[1].float().mean(0) - torch.from_numpy(mean), torch.zeros(3)]
    for word, new, g, share, lender in zip(words, found, gone, shares, lenders):
        assert torch.equal(new[g], word[g].float())
        assert torch.allclose(new[~g], (word[~g].float() + share * apart[lender]), atol=1e-6)
    assert any(not torch.equal(new, word.float()) for word, new in zip(words, found))
    assert all(torch.equal(new, word.float()) for word, new in zip(words, blurred(words, gone, mean, 0.0, rng)))


def test_compositions_that_cannot_be_are_refused():
    with pytest.raises(InputError):
        Composition(agree=0.9, neutral=0.3)


def test_learning_rate_warms_up_and_ends_at_zero():
    schedule = Schedule(epochs=1, lr=2.0, warmup=0.1)
    rates = [learning_rate(step, 100, schedule) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(2.0) and rates[-1] < 0.01
    assert all(a >= b for a, b in zip(rates[10:], rates[11:]))


class Line:
    """Fits y = 3x: the smallest task there is."""

    name, steps_per_epoch = "line", 20

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(1, 1)

    def batches(self, epoch):
        rng = np.random.default_rng(epoch)
        for _ in range(self.steps_per_epoch):
            x = torch.from_numpy(rng.normal(size=(8, 1))).float()
            yield x, 3 * x

    def loss(self, batch):
        return (self.model(batch[0]) - batch[1]).abs().mean()

    def validate(self):
        return {"score": -abs(self.model.weight.item() - 3)}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_loop_learns_and_keeps_the_best_epoch(tmp_path, ema):
    best = fit(Line(), Schedule(epochs=6, lr=0.2, ema=ema, weight_decay=0.0), tmp_path, say=lambda line: None)
    assert best.metrics["score"] == max(row["score"] for row in best.history) > -0.2
    assert best.weights["weight"].item() == pytest.approx(3 + best.metrics["score"], abs=1e-5) or \
        best.weights["weight"].item() == pytest.approx(3 - best.metrics["score"], abs=1e-5)


class Picked(Line):
    """A table's rows are picked many thousand times each, so threads that add as they finish add in another order every time."""

    name, steps_per_epoch = "picked", 4

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Embedding(30, 64)

    def batches(self, epoch):
        draw = torch.Generator().manual_seed(epoch)
        for _ in range(self.steps_per_epoch):
            yield torch.randint(30, (4000,), generator=draw), torch.randn(4000, 64, generator=draw)

    def loss(self, batch):
        return (self.model.weight[batch[0]] * batch[1]).sum() / 100

    def validate(self):
        return {"score": 0.0}


def test_loop_gives_the_same_weights_twice_with_several_threads(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [fit(Picked(), Schedule(epochs=2), tmp_path / f"{k}", say=lambda line: None).weights["weight"] for k in range(4)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:]) and not torch.are_deterministic_algorithms_enabled()


def test_loop_refuses_a_loss_that_is_not_finite(tmp_path):
    task = Line()
    task.loss = lambda batch: task.model(batch[0]).sum() * float("nan")
    with pytest.raises(RuntimeError, match="--lr"):
        fit(task, Schedule(epochs=1), tmp_path, say=lambda line: None)

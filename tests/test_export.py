"""The composed corpus as an MMSA pickle: what evaluate measures on is what stands there, and our own trainer reads it."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from msademo.backbones.voice import EMOTIONS
from msademo.corruption import MODALITIES, missing
from msademo.features.audio import AUDIO_NAMES
from msademo.features.bundle import heard_together
from msademo.features.text import load_text_encoder
from tests.pickle_support import loaded_once, write_mmsa
from train import evaluate, export_mmsa
from train.__main__ import main
from train.compose import CLOSE, balanced_epoch
from train.data import training_transcripts
from train.pickles import read_mmsa


@pytest.fixture(scope="module", autouse=True)
def one_encoder():
    with loaded_once(load_text_encoder, export_mmsa) as loader:
        yield loader


@pytest.fixture(scope="module")
def options(data, encoders, tmp_path_factory):
    return ["--data", str(data), "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors"), "--cache", str(tmp_path_factory.mktemp("cache"))]


@pytest.fixture(scope="module")
def complete(options, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "composed.pkl"
    assert main(["export-mmsa", *options, "--out", str(path), "--compositions", "2"]) == 0
    return path


def test_it_has_mmsas_keys_and_reads_as_an_mmsa_pickle(complete, tmp_path):
    content = pickle.loads(complete.read_bytes())
    published = pickle.loads(write_mmsa(tmp_path / "mosi.pkl").read_bytes())
    assert set(published["train"]) - set(content["train"]) == {"text_bert"} and "composed corpus" in content["about"]["corpus"]
    splits = read_mmsa(complete, 3.0)
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [2 * 24, 12, 12] and len(set(splits["train"].ids)) == 48
    assert splits["train"].notes == () and splits["train"].prompts[0].startswith("### Visual Cues ###")
    for part in splits.values():
        assert all((part.lengths[m] > 0).all() for m in MODALITIES)
        for i in (0, 5):
            for m in MODALITIES:
                values, length = getattr(part, m)[i], part.lengths[m][i]
                assert (values[length:] == 0).all() and (values[:length] != 0).any(1).all()


def test_with_balanced_signs_it_has_the_clips_of_our_trainers_epochs(options, complete, tmp_path):
    path = tmp_path / "balanced.pkl"
    assert main(["export-mmsa", *options, "--out", str(path), "--signs", "balanced"]) == 0
    content, whole = (pickle.loads(file.read_bytes()) for file in (path, complete))
    rows = training_transcripts(Path(options[1]), ("mosi", "mosei"))
    epoch = balanced_epoch(rows, np.random.default_rng([1111, 0]))           # the first of WordReader's with this seed
    train, scores = content["train"], np.array([rows[i].score for i in epoch], np.float32)
    assert np.array_equal(train["regression_labels"], scores) and (scores > 0).sum() == (scores < 0).sum() and content["about"]["signs"] == "balanced"
    for key in ("raw_text", "annotations"):
        assert content["valid"][key] == whole["valid"][key]
    where = {}
    for number, row in enumerate(epoch):
        where.setdefault(row, []).append(number)
    twice = next(places for row, places in where.items() if rows[row].corpus == "mosi" and len(places) == 2)
    for turn, place in enumerate(twice):                                     # a transcript's second clip is its second composition
        mine, other = train["audio"][place], whole["train"]["audio"][turn * len(rows) + epoch[place]]
        assert np.array_equal(mine, other)
    assert not np.array_equal(train["audio"][twice[0]], train["audio"][twice[1]])


def test_close_it_has_those_of_our_trainers_last_epochs(options, tmp_path):
    path = tmp_path / "close.pkl"
    assert main(["export-mmsa", *options, "--out", str(path), "--signs", "close"]) == 0
    rows = training_transcripts(Path(options[1]), ("mosi", "mosei"))
    epoch = balanced_epoch(rows, np.random.default_rng([1111, 0]), CLOSE)
    train = pickle.loads(path.read_bytes())["train"]
    assert np.array_equal(train["regression_labels"], np.array([rows[i].score for i in epoch], np.float32))
    assert max(np.bincount(epoch)) == 6 and len({values.tobytes() for values in train["audio"]}) > 1


def test_masks_are_those_that_evaluate_measures_under(options, complete, encoders, one_encoder, tmp_path):
    path = tmp_path / "half.pkl"
    assert main(["export-mmsa", *options, "--out", str(path), "--rate", "0.5", "--draw", "3", "--absent", "vision"]) == 0
    half, whole = pickle.loads(path.read_bytes()), read_mmsa(complete, 3.0)["test"]
    part, split = half["test"], read_mmsa(path, 3.0)["test"]
    assert half["about"]["missing"] == {"text": 0.5, "audio": 0.5, "vision": 1.0} and (part["vision"] == 0).all()
    encoder = one_encoder(encoders / "text.safetensors")
    for i in range(3):
        length = split.lengths["audio"][i]
        gone = missing(length, 0.5, "audio", 1111 + 300_000 + i)
        assert np.array_equal(part["audio_missing"][i, :length], gone)
        kept, measured = part["audio"][i, :length], len(AUDIO_NAMES)
        assert np.array_equal(kept[:, :measured], np.where(gone[:, None], 0, whole.audio[i, :length, :measured]))
        # What the voice amounts to is what is left of it, and the same in every step that is left.
        assert (kept[gone] == 0).all() and np.ptp(kept[~gone, measured:], axis=0).max() == 0 and kept[~gone][0, measured:].sum() == pytest.approx(1)
        assert not np.array_equal(kept[~gone][0, measured:], whole.audio[i, 0, measured:])
        tokens = encoder.tokenize(split.raw[i].split())
        mask = tokens.missing(missing(tokens.words, 0.5, "text", 1111 + 300_000 + i))
        assert np.array_equal(part["text_missing"][i, :len(tokens)], mask)
        np.testing.assert_allclose(part["text"][i, :len(tokens)], encoder.encode([tokens], [mask])[0].numpy(), atol=1e-4)
    data, face, folder = (Path(options[i]) for i in (1, 5, 7))
    args = Namespace(data=data, corpus="mosi", split="test", face=face, cache=folder, seed=1111)
    bench = evaluate.build_bench(args, encoder)
    voice = bench.clips[0][2].audio
    assert np.array_equal(heard_together(voice.values, voice.missing, len(EMOTIONS)), whole.audio[2, :whole.lengths["audio"][2]]) and np.array_equal(bench.truth.astype(np.float32), part["regression_labels"])


def test_our_own_trainer_reads_it(complete, tmp_path):
    assert main(["pglh", "--config", "mosi", "--pickle", str(complete), "--out", str(tmp_path), "--rates", "0", "--set", "epochs=1", "seeds=1", "batch=16", "model.width=8",
                 "valid_rates=0"]) == 0
    assert json.loads((tmp_path / "seed-1" / "report.json").read_text())["n"] == 12


def test_long_texts_keep_their_end(options, one_encoder, encoders, tmp_path):
    path = tmp_path / "short.pkl"
    assert main(["export-mmsa", *options, "--out", str(path), "--steps", "4", "--corpora", "mosi"]) == 0
    part = read_mmsa(path, 3.0)
    encoder = one_encoder(encoders / "text.safetensors")
    tokens = encoder.tokenize(part["valid"].raw[0].split())
    features = encoder.encode([tokens], [np.zeros(len(tokens), bool)])[0].numpy()
    np.testing.assert_allclose(part["valid"].text[0], features[[0, 1, 2, -1]], atol=1e-4)
    assert len(part["train"]) == 12


@pytest.mark.parametrize("more, words", [(["--rate", "2"], "--rate must be"), (["--compositions", "0"], "--compositions must be positive"), (["--steps", "1"], "--steps 3")])
def test_what_cannot_be_exported_is_one_sentence(options, tmp_path, capsys, more, words):
    assert main(["export-mmsa", *options, "--out", str(tmp_path / "o.pkl"), *more]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1 and not list(tmp_path.iterdir())

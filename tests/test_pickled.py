"""The three methods on small MMSA pickles, end to end: training, resuming, measuring by both protocols, tables; and every refusal on the way."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch

from msademo.checkpoint import read_checkpoint
from msademo.corruption import MODALITIES
from msademo.features.text import TextTokens
from tests.pickle_support import VOCABULARY, loaded_once, write_bert, write_mmsa
from train import evaluate_pickled, loop, pickled, readers
from train.__main__ import main
from train.featured import featured, unit_masks
from train.pickles import read_mmsa
from train.protocol import Bench, lnln_masks
from train.readers import Bert, load_encoder

SMALL = ["epochs=2", "batch=8", "seeds=1,2", "draws=2", "lr=3e-3", "model.width=8", "model.heads=2", "model.feed_forward=8"]
PGMF_SMALL = ["model.head_width=4", "model.alignment_feed_forward=8", "model.fusion_feed_forward=8", "model.fusion_heads=2", "model.alignment_layers=1", "model.fusion_layers=1",
              "model.prompt_tokens=3", "model.prompt_layers=1"]


@pytest.fixture(scope="module", autouse=True)
def one_encoder():
    """Each command loads its encoder; here they share it."""
    with loaded_once(load_encoder, pickled, evaluate_pickled):
        yield


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def mosi(tmp_path_factory):
    return write_mmsa(tmp_path_factory.mktemp("mosi") / "unaligned_9.pkl")


def command(method, config, pickle, out, *more, settings=()):
    small = SMALL + (PGMF_SMALL if method.startswith("pgmf") else [])
    return [method, "--config", config, "--pickle", str(pickle), "--out", str(out), "--rates", "0,0.5", *more, "--set", *small, *settings]


@pytest.fixture(scope="module")
def pglh(mosi, tmp_path_factory):
    """An undisturbed run of two seeds on the pickle's own text features."""
    out = tmp_path_factory.mktemp("pglh")
    assert main(command("pglh", "mosi", mosi, out)) == 0
    return out


@pytest.fixture(scope="module")
def teacher(mosi, bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    assert main(command("pgmf-teacher", "mosi", mosi, out, "--text-encoder", str(bert), settings=("seeds=1",))) == 0
    return out


@pytest.fixture(scope="module")
def student(mosi, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    assert main(command("pgmf-student", "mosi", mosi, out, "--teacher", str(teacher), "--protocol", "lnln", settings=("seeds=1",))) == 0
    return out


def report(folder, seed=1, name="report.json"):
    return json.loads((folder / f"seed-{seed}" / name).read_text())


def test_a_run_leaves_checkpoints_reports_and_curves(pglh, mosi):
    for seed in (1, 2):
        found = report(pglh, seed)
        assert [row["rate"] for row in found["rates"]] == [0.0, 0.5] and found["n"] == 8 and found["split"] == "test" and found["training_seed"] == seed
        assert set(found["absent"]) == {"text", "audio", "vision", "audio+vision", "text+audio"} and "masked behind the encoder, which leaks" in found["about"]
        assert found["average"]["mae"] == pytest.approx(np.mean([row["mae"] for row in found["rates"]]))
        with open(pglh / f"seed-{seed}" / "curves.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2"] and all(float(row[name]) > 0 for row in rows for name in ("loss", "loss_mask", "loss_global", "mae@0.9"))
        assert (pglh / f"seed-{seed}" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert report(pglh, 1)["rates"][0]["mae"] != report(pglh, 2)["rates"][0]["mae"]
    meta = read_checkpoint(pglh / "seed-1" / "model.safetensors", "pglh").meta
    assert meta["pickle"]["text"] == {"encoder": "pickle", "sha256": None} and meta["scale"] == [-3.0, 3.0] and meta["metrics"]["split"] == "valid"
    assert meta["median"] == np.median(read_mmsa(mosi, 3.0)["train"].scores)


def test_the_same_seed_gives_the_same_figures_even_when_cut_off(pglh, mosi, tmp_path, monkeypatch):
    run, save, done = command("pglh", "mosi", mosi, tmp_path), loop.save_state, []

    def cut(path, **state):
        save(path, **state)
        done.append(path)
        if len(done) == 3:                                   # in the middle of the second seed
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", cut)
    assert main(run) == 130 and not (tmp_path / "seed-2" / "model.safetensors").is_file() and (tmp_path / "seed-2" / "state.pt").is_file()
    monkeypatch.setattr(loop, "save_state", save)
    assert main(run) == 0
    for seed in (1, 2):
        undisturbed, resumed = (read_checkpoint(folder / f"seed-{seed}" / "model.safetensors").tensors for folder in (pglh, tmp_path))
        assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
        assert report(pglh, seed) == report(tmp_path, seed)


def test_measuring_goes_on_where_it_stopped_and_is_not_done_twice(pglh, mosi, tmp_path, monkeypatch, capsys):
    out, asked, real = tmp_path / "out.json", [], Bench.measure

    def measure(bench, fusion, cases):
        asked.append(cases[0]["audio"])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(bench, fusion, cases)

    monkeypatch.setattr(Bench, "measure", measure)
    run = ["evaluate", str(pglh / "seed-1" / "model.safetensors"), "--pickle", str(mosi), "--rates", "0,0.5", "--draws", "2", "--json", str(out)]
    assert main(run) == 130 and not out.exists()
    assert main(run) == 0 and asked == [0.0, 0.5, 1.0, 1.0, 0.0] and json.loads(out.read_text()) == report(pglh), "rates that were measured are not again"
    assert list(tmp_path.iterdir()) == [out]
    assert main(run) == 0 and len(asked) == 5 and "there already" in capsys.readouterr().out
    assert main([*run, "--mask-seed", "7"]) == 0 and len(asked) == 9 and json.loads(out.read_text()) != report(pglh)


def test_a_model_learns_what_the_features_tell(mosi, tmp_path):
    assert main(command("pglh", "mosi", mosi, tmp_path, settings=("epochs=25", "seeds=1", "lr=1e-2", "highest=0.3", "valid_rates=0"))) == 0
    found = report(tmp_path)
    assert found["rates"][0]["mae"] < found["floor"]["mae"] * 0.8


def test_teacher_and_student(teacher, student, bert, mosi):
    guided = read_checkpoint(teacher / "seed-1" / "model.safetensors", "pgmf-teacher")
    assert guided.config["guided"] and guided.meta["pickle"]["guidance"] == "written offline from the words alone" and len(guided.meta["pickle"]["text"]["sha256"]) == 64
    assert guided.config["lengths"] == {"text": 50, "audio": 375, "vision": 500} and guided.config["dims"] == {"text": 12, "audio": 4, "vision": 5}
    assert "prompts: written offline" in report(teacher)["about"] and "taken away before the text encoder" in report(teacher)["about"]
    pupil = read_checkpoint(student / "seed-1" / "model.safetensors", "pgmf-student")
    assert not pupil.config["guided"] and len(pupil.meta["teacher"]["sha256"]) == 64 and pupil.meta["pickle"]["text"] == guided.meta["pickle"]["text"]
    assert pupil.meta["statistics"] == guided.meta["statistics"]
    found = report(student, name="report-lnln.json")
    assert found["protocol"] == "lnln" and "RandomState(1111)" in found["about"] and "[UNK]" in found["about"] and "prompt" not in found["about"]
    assert {"loss_regression", "loss_attention", "loss_fusion"} <= set(pupil.meta["history"][0])


def test_prompts_of_the_pickle_are_read(bert, tmp_path):
    def change(content):
        for part in content.values():
            part["prompt"] = ["### Visual Cues ###\nThe film was lovely.\n### Language Cues ###\nGreat words."] * len(part["id"])
    path = write_mmsa(tmp_path / "prompted.pkl", change=change)
    out = tmp_path / "out"
    assert main(command("pgmf-teacher", "mosi", path, out, "--text-encoder", str(bert), settings=("seeds=1", "epochs=1"))) == 0
    assert "prompts: the pickle's key 'prompt'" in report(out)["about"]
    measured = tmp_path / "plain.json"
    assert main(["evaluate", str(out / "seed-1" / "model.safetensors"), "--pickle", str(path), "--rates", "0", "--without-prompt", "--json", str(measured)]) == 0
    plain = json.loads(measured.read_text())
    assert "without a prompt" in plain["about"] and plain["rates"][0]["mae"] != report(out)["rates"][0]["mae"]


def test_sims_with_the_bundled_encoder_reading_its_texts(tmp_path):
    path = write_mmsa(tmp_path / "sims.pkl", "sims", counts=(8, 4, 4))
    assert main(command("pglh", "sims", path, tmp_path / "out", "--text-encoder", "bundled", settings=("seeds=1", "epochs=1", "draws=1"))) == 0
    found = report(tmp_path / "out")
    assert set(found["rates"][0]) == {"rate", "acc2", "f1", "acc3", "acc5", "mae", "corr"} and found["text"] == "bundled"
    assert read_checkpoint(tmp_path / "out" / "seed-1" / "model.safetensors").config["dims"]["text"] == 384


def test_evaluate_agrees_with_the_run_and_measures_any_split(pglh, mosi, tmp_path):
    path, out = pglh / "seed-1" / "model.safetensors", tmp_path / "out.json"
    assert main(["evaluate", str(path), "--pickle", str(mosi), "--rates", "0,0.5", "--draws", "2", "--json", str(out)]) == 0
    assert json.loads(out.read_text()) == report(pglh)
    assert main(["evaluate", str(path), "--pickle", str(mosi), "--rates", "0", "--split", "valid", "--protocol", "lnln", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["split"] == "valid" and found["rates"][0]["mae"] == pytest.approx(read_checkpoint(path).meta["metrics"]["mae@0.0"], abs=1e-6)


def literal_lnln(split, rates, seed):
    """LNLN's generate_m, as its text says: the generator seeded before each modality, one call over the whole padded array."""
    bert, lengths = split.bert.astype(np.int64), split.lengths
    np.random.seed(seed)
    ids, mask = bert[:, 0], bert[:, 1]
    keep = (np.random.uniform(size=ids.shape) > rates["text"]) * mask
    keep[:, 0] = 1
    for row, length in zip(keep, mask.sum(1)):
        row[length - 1] = 1
    found = {"text": keep * ids + 100 * np.ones_like(ids) * (mask - keep)}
    for m in ("audio", "vision"):
        values = getattr(split, m)
        np.random.seed(seed)
        mask = np.array([[1] * n + [0] * (values.shape[1] - n) for n in lengths[m]])
        keep = (np.random.uniform(size=mask.shape) > rates[m]) * mask
        found[m] = keep[:, :, None] * values
    return found


@pytest.mark.parametrize("rates", [dict.fromkeys(MODALITIES, r) for r in (0.0, 0.1, 0.5, 0.9)] + [{"text": 1.0, "audio": 0.0, "vision": 0.0}])
@pytest.mark.parametrize("aligned", [False, True])
def test_lnln_masks_are_lnlns_bit_for_bit(tmp_path, bert, rates, aligned, monkeypatch):
    split = read_mmsa(write_mmsa(tmp_path / "a.pkl", aligned=aligned), 3.0)["test"]
    encoder = Bert(str(bert))
    data = featured(split, encoder, None)
    masks, wanted = lnln_masks(data, rates, 1111), literal_lnln(split, rates, 1111)
    read = []
    monkeypatch.setattr(encoder, "encode", lambda tokens, gone: read.extend(zip(tokens, gone)) or [torch.zeros(len(t), 12) for t in tokens])
    data.texts.features(range(len(split)), [mask["text"] for mask in masks], unknown=True)
    for i, (tokens, gone) in enumerate(read):
        length = split.lengths["text"][i]
        assert np.array_equal(tokens.ids, wanted["text"][i, :length]) and not gone.any(), "[UNK] is read, not left out"
        for m in ("audio", "vision"):
            values = np.where(masks[i][m][:, None], 0, data.samples[i].track(m).values)
            assert np.array_equal(values, wanted[m][i, :split.lengths[m][i]])


def test_lnln_masks_are_those_of_the_whole_file_where_a_model_cuts_it(mosi):
    split = read_mmsa(mosi, 3.0)["test"]
    whole, cut = (lnln_masks(featured(split, None, lengths), dict.fromkeys(MODALITIES, 0.5), 1111) for lengths in (None, {"text": 9, "audio": 4, "vision": 3}))
    for a, b in zip(whole, cut):
        assert all(np.array_equal(a[m][:len(b[m])], b[m]) for m in MODALITIES) and len(b["audio"]) <= 4


def test_steps_of_zeros_alone_are_what_the_clip_lacks(tmp_path):
    def change(content):
        content["test"]["vision"][2, 1] = 0                    # no face found in this frame
    data = featured(read_mmsa(write_mmsa(tmp_path / "a.pkl", change=change), 3.0)["test"], None, None)
    track = data.samples[2].vision
    assert track.missing[1] and track.missing.sum() == 1 and not data.samples[3].vision.missing.any()
    for masks in (unit_masks(data, dict.fromkeys(MODALITIES, 0.0), 0), lnln_masks(data, dict.fromkeys(MODALITIES, 0.0), 1111)):
        assert masks[2]["vision"].tolist() == track.missing.tolist() and not masks[2]["audio"].any()


def test_missing_words_are_not_read(mosi, bert):
    split = read_mmsa(mosi, 3.0)["test"]
    encoder = Bert(str(bert))
    data = featured(split, encoder, None)
    masks = unit_masks(data, {"text": 0.5, "audio": 0.0, "vision": 0.0}, 0)
    i, mask = next((i, m["text"]) for i, m in enumerate(masks) if 0 < m["text"].sum() < len(m["text"]))
    other = TextTokens(np.where(mask, VOCABULARY.index("lovely"), data.texts.tokens[i].ids), *(getattr(data.texts.tokens[i], name) for name in ("first", "last", "pieces", "words")))
    torch.testing.assert_close(encoder.encode([data.texts.tokens[i]], [mask])[0], encoder.encode([other], [mask])[0])
    assert not mask[0] and not mask[-1], "CLS and SEP stay"
    # What is left is read at its own positions, as the BERT itself does under its attention mask.
    ids = torch.from_numpy(data.texts.tokens[i].ids)[None]
    with torch.no_grad():
        direct = encoder.model(input_ids=ids, attention_mask=torch.from_numpy(~mask)[None].long()).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode([data.texts.tokens[i]], [mask])[0][~mask], direct[~mask], atol=1e-5, rtol=1e-4)
    absent = unit_masks(data, {"text": 1.0, "audio": 0.0, "vision": 0.0}, 0)[i]["text"]
    assert absent.all() and torch.equal(encoder.encode([data.texts.tokens[i]], [absent])[0], torch.zeros(len(absent), 12))


def test_a_constant_reaches_the_floor(mosi):
    data = featured(read_mmsa(mosi, 3.0)["test"], None, None)
    floor, truth = Bench(data, "mosi", "draws", 1, 0).floor(0.5), data.truth
    assert floor["acc2_non0"] == pytest.approx(max(np.mean(truth > 0), np.mean(truth < 0))) and floor["mae"] == pytest.approx(np.mean(np.abs(truth - 0.5)))
    share = floor["acc2_non0"]
    assert floor["f1_non0"] == pytest.approx(2 * share ** 2 / (1 + share)), "weighted F1 of a constant"


@pytest.mark.parametrize("more, words", [
    (["--config", "mossi"], "nearest is 'mosi'"), (["--set", "epocs=3"], "nearest is 'epochs'"), (["--text-encoder", "./nowhere/bert"], "no folder ./nowhere/bert"),
    (["--config", "sims"], "reaches"), (["--teacher", "x"], "leave --teacher out"), (["--without-prompt"], "leave --without-prompt out"), (["--rates", "2"], "rates"),
])
def test_what_cannot_be_trained_is_one_sentence(mosi, tmp_path, capsys, more, words):
    assert main(["pglh", "--config", "mosi", "--pickle", str(mosi), "--out", str(tmp_path), *more]) == 2
    message = capsys.readouterr().err
    assert re.search(words, message) and message.count("\n") == 1


def test_encoders_and_protocols_that_do_not_go_together(mosi, bert, teacher, pglh, tmp_path, capsys):
    def refused(*arguments):
        assert main(list(map(str, arguments))) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "give --text-encoder bundled or a BERT, or --without-prompt" in refused(*command("pgmf-teacher", "mosi", mosi, tmp_path))
    assert "give --teacher" in refused(*command("pgmf-student", "mosi", mosi, tmp_path))
    assert "holds a pglh model" in refused(*command("pgmf-student", "mosi", mosi, tmp_path, "--teacher", str(pglh)))
    assert "words read otherwise" in refused(*command("pgmf-student", "mosi", mosi, tmp_path, "--teacher", str(teacher), "--text-encoder", "bundled", settings=("seeds=1",)))
    assert "cannot learn from the teacher" in refused(*command("pgmf-student", "mosi", mosi, tmp_path, "--teacher", str(teacher), settings=("seeds=1", "model.width=16")))
    other = write_mmsa(tmp_path / "other.pkl", counts=(16, 8, 7))
    assert "other data" in refused(*command("pgmf-student", "mosi", other, tmp_path, "--teacher", str(teacher), settings=("seeds=1",)))
    model = pglh / "seed-1" / "model.safetensors"
    wide = write_mmsa(tmp_path / "wide.pkl", shapes="mosi", counts=(2, 2, 2))
    assert "has 5 audio features where model.safetensors expects 4" in refused("evaluate", model, "--pickle", wide, "--json", tmp_path / "o.json")
    assert "another text encoder" in refused("evaluate", model, "--pickle", mosi, "--text-encoder", bert, "--json", tmp_path / "o.json")
    assert "reads no prompts" in refused("evaluate", model, "--pickle", mosi, "--without-prompt", "--json", tmp_path / "o.json")
    assert "other settings" in refused(*command("pglh", "mosi", mosi, pglh, settings=("lr=1",)))


def test_texts_are_read_where_there_are_no_ids(bert, tmp_path):
    def change(content):
        for part in content.values():
            del part["text_bert"]
            part["text"] = part["text"][:, :, :7]                # GloVe-like: another width, no CLS and SEP
    splits = read_mmsa(write_mmsa(tmp_path / "a.pkl", change=change), 3.0)
    encoder = Bert(str(bert))
    read, fixed = (featured(splits["test"], how, None) for how in (encoder, None))
    words = splits["test"].raw[0].split()
    assert read.samples[0].tokens.words == fixed.samples[0].tokens.words - 2 == len(words) and read.samples[0].tokens.first[0] == -1
    assert list(read.samples[0].tokens.ids) == [VOCABULARY.index(w) for w in ("[CLS]", *words, "[SEP]")]
    assert (fixed.samples[0].tokens.first >= 0).all() and fixed.texts.values[0].shape == (len(words) + 2, 7)
    assert len(featured(splits["test"], encoder, {"text": 4, "audio": 2, "vision": 2}).samples[0].tokens) == 4
    assert readers.UNKNOWN == VOCABULARY.index("[UNK]")

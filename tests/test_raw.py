"""Folders of labelled clips: tables and splits, a bad file among good ones, features made once, and training on them up to the demo."""

from __future__ import annotations

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from msademo.analyzer import CHECKPOINTS, Analyzer
from msademo.checkpoint import read_checkpoint
from msademo.errors import InputError
from msademo.features.bundle import Statistics, collate, token_masks
from msademo.features.vision import VISION_NAMES
from msademo.features.voice import VOICE_NAMES
from tests.mediafiles import tone, write_media
from tests.pickle_support import loaded_once, write_bert
from train import evaluate_pickled, pickled
from train.__main__ import main
from train.raw import read_folder
from train.readers import load_encoder

SMALL = ["epochs=1", "batch=4", "draws=1", "valid_rates=0", "model.width=8", "model.heads=2", "model.feed_forward=8"]
PGMF_SMALL = [*SMALL, "model.head_width=4", "model.alignment_layers=1", "model.fusion_layers=1", "model.prompt_layers=1", "model.prompt_tokens=2"]
WORDS = {1: "this film was great", -1: "this film was awful"}


def write_sims(folder: Path, count: int = 8) -> Path:
    """A folder as published: ids that look like numbers, a clip of each kind of absence, and one file that is no media file."""
    rows = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for i in range(count):
        sign, mode = (1 if i % 2 else -1), ("train", "train", "valid", "test")[i % 4]
        rows.append(f"{i // 4 + 1:04d},{i % 4 + 1:04d},{'' if i == 1 else WORDS[sign]},{sign * 0.6:.1f},0,0,0,{'Positive' if sign > 0 else 'Negative'},{mode}")
        target = folder / "Raw" / f"{i // 4 + 1:04d}" / f"{i % 4 + 1:04d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        if i == 4:
            target.write_bytes(b"no media file")
        else:
            write_media(target, 1.0, size=(64, 48), rate=5, sound=None if i == 5 else tone(1.0) * (1 if sign > 0 else 0.1))
    (folder / "label.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_encoder():
    with loaded_once(load_encoder, pickled, evaluate_pickled):
        yield


@pytest.fixture(scope="module")
def sims(tmp_path_factory):
    """The folder, its cache, and the trained runs beside each other. One file was no media file at first; what was said then is in said.txt."""
    place, said = tmp_path_factory.mktemp("sims"), io.StringIO()
    write_sims(place / "SIMS")
    with redirect_stdout(said):
        assert main(["prepare", "--raw", str(place / "SIMS"), "--cache", str(place / "cache"), "--workers", "2"]) == 0
    (place / "said.txt").write_text(said.getvalue())
    (place / "times.txt").write_text(times_of(place / "cache"))
    write_media(place / "SIMS" / "Raw" / "0002" / "0001.mp4", 1.0, size=(64, 48), rate=5)
    assert main(["prepare", "--raw", str(place / "SIMS"), "--cache", str(place / "cache"), "--workers", "1"]) == 0
    return place


def times_of(folder: Path) -> str:
    return "\n".join(f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(folder.rglob("*.npz")))


def command(place: Path, method: str, *more: str, settings=SMALL) -> list[str]:
    return [method, "--data", str(place / "SIMS"), "--cache", str(place / "cache"), "--workers", "1", "--out", str(place / method), "--rates", "0,0.5", *more, "--set", *settings]


def test_ids_stay_texts_and_a_bad_file_stops_nothing(sims):
    said, made = (sims / "said.txt").read_text(), (sims / "times.txt").read_text().splitlines()
    assert "left out - 0002/0001:" in said and "7 clips ready, 0 rows of words alone, 1 left out" in said and "train 4, valid 2, test 2 (as the table names them); scores in [-1, 1]" in said
    later = times_of(sims / "cache").splitlines()
    assert len(made) == 7 and len(later) == 8 and set(made) < set(later), "what is there is not made again, and a file that was mended is read"
    folder = read_folder(sims / "SIMS")
    assert folder.items[0].key == "0001/0001" and folder.items[0].file == "Raw/0001/0001.mp4" and folder.limit == 1.0


def test_what_clips_lack_is_lacking(sims):
    encoder, _ = load_encoder("bundled")
    data = pickled.read_labelled(read_folder(sims / "SIMS"), encoder, None, pickled.FACE, sims / "cache", 1)["train"]
    assert data.split.ids == ("0001/0001", "0001/0002", "0002/0001", "0002/0002") and data.split.scores.tolist() == [-0.6, 0.6, -0.6, 0.6]
    whole, wordless, _, silent = data.samples
    assert whole.tokens.words == 4 and wordless.tokens.words == 0 and len(whole.audio.values) > 5 and len(silent.audio.values) == 0
    assert whole.vision.missing.all() and len(whole.vision.values) >= 4, "a coloured square is no face"
    masks = [token_masks(sample, {m: np.zeros(sample.units(m), bool) for m in ("text", "audio", "vision")}) for sample in data.samples]
    words = encoder([s.tokens for s in data.samples], [mask["text"] for mask in masks])
    widths = {"text": 384, "audio": len(VOICE_NAMES), "vision": len(VISION_NAMES)}
    batch = collate(data.samples, masks, words, Statistics(*({m: part(width, np.float32) for m, width in widths.items()} for part in (np.zeros, np.ones))))
    assert not batch.real("vision").any() and not batch.real("audio")[3].any() and batch.real("audio")[0].any()
    assert not batch.real("text")[1].any() and batch.real("text")[0].any()


def test_training_measuring_and_the_demo(sims, tmp_path):
    assert main(command(sims, "pglh")) == 0
    model = sims / "pglh" / "seed-1111" / "model.safetensors"
    meta = read_checkpoint(model, "pglh").meta
    assert meta["scale"] == [-1.0, 1.0] and meta["folder"]["dataset"] == "folder-1" and meta["folder"]["division"] == "as the table names them" and meta["data"] == "the folder SIMS"
    report = json.loads((model.parent / "report.json").read_text())
    assert report["n"] == 2 and set(report["average"]) == {"acc2", "f1", "acc3", "acc5", "mae", "corr"} and "taken away before" in report["about"]
    again = tmp_path / "again.json"
    assert main(["evaluate", str(model), "--data", str(sims / "SIMS"), "--cache", str(sims / "cache"), "--workers", "1", "--rates", "0,0.5", "--draws", "1", "--json", str(again)]) == 0
    assert json.loads(again.read_text()) == report
    for name in ("text", "face", "voice"):
        shutil.copy(CHECKPOINTS / f"{name}.safetensors", tmp_path)
    shutil.copy(model, tmp_path / "pglh.safetensors")
    result = Analyzer(tmp_path).clip(str(sims / "SIMS" / "Raw" / "0001" / "0001.mp4"), "this film was great")
    assert result.scale == (-1.0, 1.0) and np.isfinite(result.score)


def test_a_teacher_reads_what_was_written_from_the_clips_and_teaches_a_student(sims, capsys):
    assert main(command(sims, "pgmf-teacher", settings=PGMF_SMALL)) == 0
    meta = read_checkpoint(sims / "pgmf-teacher" / "seed-1111" / "model.safetensors", "pgmf-teacher").meta
    assert meta["folder"]["guidance"] == "written offline from the complete clips" and meta["config"]["guided"]
    assert main(command(sims, "pgmf-student", "--teacher", str(sims / "pgmf-teacher"), settings=PGMF_SMALL)) == 0
    assert read_checkpoint(sims / "pgmf-student" / "seed-1111" / "model.safetensors").meta["extractor"] == meta["extractor"]
    assert main(command(sims, "baseline", settings=["epochs=1", "draws=1"])) == 0
    assert main(["table", str(sims / "pgmf-student"), str(sims / "baseline"), "--out", str(sims / "tables")]) == 0
    assert "a constant, at best" in (sims / "tables" / "table.md").read_text() and "as printed" not in (sims / "tables" / "table.md").read_text()


def test_the_shipped_checkpoint_is_measured_on_a_folder_of_its_scale(sims, tmp_path, capsys):
    out = tmp_path / "out.json"
    run = ["evaluate", str(CHECKPOINTS / "pglh.safetensors"), "--data", str(sims / "SIMS"), "--cache", str(sims / "cache"), "--workers", "1", "--rates", "0", "--json", str(out)]
    assert main(run) == 2 and "answers in [-3, 3] and the labels of SIMS lie in [-1, 1]" in capsys.readouterr().err
    assert main([*run, "--scale", "3"]) == 0 and json.loads(out.read_text())["n"] == 2


def test_a_bert_reads_chinese_words_character_by_character_and_there_need_be_no_media(tmp_path):
    bert = write_bert(tmp_path / "bert")
    place = tmp_path / "place"
    own(place / "SIMS", "file,text,label,mode", *(f",{('今天很开心', '这部电影太差了')[i % 2]},{0.4 - i % 2},{('train', 'train', 'dev', 'test')[i % 4]}" for i in range(8)))
    assert main(command(place, "pglh", "--text-encoder", str(bert))) == 0
    meta = read_checkpoint(place / "pglh" / "seed-1111" / "model.safetensors").meta
    assert meta["folder"]["text"]["encoder"] == str(bert) and meta["config"]["dims"] == {"text": 12, "audio": len(VOICE_NAMES), "vision": len(VISION_NAMES)}
    encoder, _ = load_encoder(str(bert))
    data = pickled.read_labelled(read_folder(place / "SIMS"), encoder, None, pickled.FACE, place / "cache", 1)["train"]
    assert [sample.tokens.words for sample in data.samples[:2]] == [len("今天很开心"), len("这部电影太差了")]


def own(folder: Path, columns: str, *rows: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join([columns, *rows]), encoding="utf-8")
    return folder


def test_a_folder_without_splits_is_divided_by_speaker(tmp_path):
    rows = [f",{WORDS[1 if i % 2 else -1]},{-2 + i % 5},s{i // 4}" for i in range(40)]
    folder = read_folder(own(tmp_path, "file,text,label,speaker", *rows))
    owners = {split: {i // 4 for i, name in enumerate(folder.splits) if name == split} for split in ("train", "valid", "test")}
    assert sum(map(len, owners.values())) == 10 and {len(owners["valid"]), len(owners["test"])} == {1} and "by speaker, seed 1111" in folder.division and folder.limit == 3.0
    assert read_folder(tmp_path).splits == folder.splits, "the same division again"
    by_rows = read_folder(own(tmp_path, "file,text,label", *(row.rsplit(",", 1)[0] for row in rows)))
    assert by_rows.counts() == "train 32, valid 4, test 4" and "by rows" in by_rows.division
    assert set(read_folder(own(tmp_path, "file,text,label,speaker", *rows[:12])).splits) == {"train", "valid", "test"}


@pytest.mark.parametrize("columns, rows, words", [
    ("file,text,label,speaker", [",good,1,a", ",bad,-1,b"], "2 speakers"), ("file,text,label,split", [",good,1,train", ",bad,-1,tset"], "'tset'; expected train, valid or test"),
    ("file,text,label,split", [",good,1,train", ",bad,-1,"], "1 of 2 rows name no split"), ("file,text,label", [",good,positive", ",bad,negative"], "classes"),
    ("file,text", [",good"], "no column called label"), ("file,text,label", [",good,4"], "from -3 to 3"), ("file,text,label", ["x.mp4,good,1"], "None of the files"),
])
def test_what_no_folder_is_is_one_sentence(tmp_path, columns, rows, words):
    with pytest.raises(InputError, match=words) as refused:
        read_folder(own(tmp_path, columns, *rows))
    assert "\n" not in str(refused.value)


def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, sims, capsys):
    def refused(*arguments: object) -> str:
        assert main(list(map(str, arguments))) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "neither label.csv" in refused("prepare", "--raw", tmp_path)
    folder = own(tmp_path / "own", "file,text,label,split", *(f",good film,{i % 3},train" for i in range(4)))
    assert "has no valid rows" in refused("pglh", "--data", folder, "--cache", tmp_path)
    assert "expected scores in [-1, 1]" in refused("pglh", "--data", folder, "--config", "sims", "--cache", tmp_path)
    assert "--scale is for folders without --config" in refused("pglh", "--data", folder, "--config", "sims", "--scale", "1")
    assert "lnln masks the token ids" in refused(*command(sims, "pglh", "--protocol", "lnln"))
    assert "no configuration 'mosi' for baseline" in refused("baseline", "--data", folder, "--config", "mosi")
    assert "no folder ./nowhere/bert" in refused(*command(sims, "pglh", "--text-encoder", "./nowhere/bert"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        assert "pip install transformers" in refused(*command(sims, "pglh", "--text-encoder", "bert-base-chinese"))

"""Posts in every layout people have, in whatever encoding, with files that are not what they seem; captions; training and evaluation end to end."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from msademo.checkpoint import read_checkpoint
from msademo.errors import InputError
from msademo.features.posts import as_read, post_words
from msademo.metrics import class_metrics
from msademo.models.spro import CLASSES
from tests.synthetic import write_csv
from tests.towers import TinyImage, TinyText
from train.__main__ import main
from train.posts import decode_text, merge_labels, read_captions, read_posts
from train.spro_task import choose_weight, mirrored
from train.stems import grids, text_stems, usable

COLOURS = {"positive": (40, 200, 240), "neutral": (128, 128, 128), "negative": (120, 20, 20)}
WORDS = {"positive": "what a lovely day", "neutral": "the train leaves at nine", "negative": "this is awful"}


def picture(path: Path, colour=(10, 20, 30), size=(40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), colour, np.uint8))


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    """posts.csv with 12 train, 6 valid and 6 test posts that colour and words tell apart."""
    folder = tmp_path_factory.mktemp("posts")
    rows = []
    for split, count in (("train", 12), ("valid", 6), ("test", 6)):
        for i in range(count):
            label = CLASSES[i % 3]
            picture(folder / "images" / f"{split}{i:03}.jpg", COLOURS[label])
            rows.append((f"{split}{i:03}", split, label, f"@user{i} {WORDS[label]} #{i}"))
    write_csv(folder / "posts.csv", ("id", "split", "label", "text"), rows)
    with gzip.open(folder / "captions.jsonl.gz", "wt") as file:
        for key, split, label, _ in rows:
            if split == "train":
                file.write(json.dumps({"id": key, "tone": "one colour", "content": f"a plane of {label} colour", "emotion": "calm", "source": "offline"}) + "\n")
    return folder


def test_posts_csv(posts):
    train = read_posts(posts, "train")
    assert len(train) == 12 and train[0].key == "train000" and train[0].label == "negative" and train[0].image.is_file()
    assert "lovely" in train[2].text


def test_clmlf_counts_from_positive(tmp_path):
    for key in ("a", "b", "c"):
        picture(tmp_path / "dataset_image" / f"{key}.jpg")
    rows = [{"id": key, "text": f"text {key}", "emotion_label": i} for i, key in enumerate("abc")]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    (tmp_path / "dev.json").write_text(json.dumps(rows[:1] + [{"id": "nowhere", "text": "x", "emotion_label": 0}, {"id": "b", "text": "x", "emotion_label": 7}]))
    assert [post.label for post in read_posts(tmp_path, "train")] == ["positive", "neutral", "negative"]
    said = []
    assert [post.key for post in read_posts(tmp_path, "valid", said.append)] == ["a"]
    assert "2 of 3" in said[0] and "nowhere (no picture)" in said[0]
    with pytest.raises(InputError, match="test.json"):
        read_posts(tmp_path, "test")
    (tmp_path / "train.json").write_text('{"id": 3}')
    with pytest.raises(InputError, match="emotion_label"):
        read_posts(tmp_path, "train")


@pytest.mark.parametrize("pairs, label", [
    ([("positive", "positive")], "positive"), ([("neutral", "negative")], "negative"), ([("positive", "neutral")], "positive"),
    ([("neutral", "neutral")], "neutral"), ([("positive", "negative")], None), ([("negative", "positive")], None),
    ([("positive", "neutral"), ("positive", "negative"), ("negative", "neutral")], "positive"),          # majority of three on either side
    ([("positive", "neutral"), ("neutral", "neutral"), ("negative", "neutral")], None),                  # no majority about the text
    ([("positive", "negative"), ("positive", "negative"), ("neutral", "neutral")], None),
])
def test_label_rule(pairs, label):
    assert merge_labels(pairs) == label


@pytest.mark.parametrize("text, encoding", [("naïve café 😀", "utf-8"), ("今天很高兴", "gb18030"), ("今天很高兴", "utf-8"), ("plain", "utf-8-sig")])
def test_encodings(text, encoding):
    assert decode_text(text.encode(encoding)) == text


def test_bytes_of_no_encoding_are_still_a_text():
    assert decode_text(b"caf\xe9 \xff\x00 end").endswith("end")


def test_mvsa_as_published(tmp_path):
    """Single: one judgement; encodings differ from file to file; the split is 8:1:1, always the same, and covers all."""
    lines = ["ID\ttext,image"]
    for i in range(40):
        picture(tmp_path / "data" / f"{i}.jpg")
        (tmp_path / "data" / f"{i}.txt").write_bytes(f"文 {i} 高兴".encode("gb18030" if i % 2 else "utf-8"))
        lines.append(f"{i}\t{'positive,neutral' if i < 30 else 'positive,negative'}")
    lines += ["99\tpositive,positive", "odd line", "7\tgreat,awful", ""]
    (tmp_path / "labelResultAll.txt").write_text("\r\n".join(lines))
    said = []
    parts = {split: read_posts(tmp_path, split, said.append) for split in ("train", "valid", "test")}
    keys = [post.key for part in parts.values() for post in part]
    assert sorted(keys, key=int) == [str(i) for i in range(30)], "conflicting judgements are dropped, and 99 has no picture"
    assert any("99 (no picture)" in line for line in said)
    assert {len(part) for part in parts.values()} <= {3, 4, 23, 24, 25} and all(post.text.startswith("文") and "高兴" in post.text for post in parts["train"])
    assert parts["train"] == read_posts(tmp_path, "train")


def test_mvsa_multiple_has_three_judgements(tmp_path):
    for i in range(10):
        picture(tmp_path / "data" / f"{i}.jpg")
        (tmp_path / "data" / f"{i}.txt").write_text("words")
    (tmp_path / "labelResultAll.txt").write_text("ID\ttext,image\ttext,image\ttext,image\n" + "\n".join(
        f"{i}\tnegative,neutral\tnegative,neutral\tpositive,positive" for i in range(10)))
    assert {post.label for post in read_posts(tmp_path, "train")} == {"negative"}


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="no posts that can be read"):
        read_posts(tmp_path, "train")
    write_csv(tmp_path / "posts.csv", ("id", "split", "label", "text"), [("1", "train", "positive", "x")])
    with pytest.raises(InputError, match="no folder of pictures"):
        read_posts(tmp_path, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="can be used"):
        read_posts(tmp_path, "train")
    with pytest.raises(InputError, match="split"):
        read_posts(tmp_path, "nonsense")


def test_pictures_that_are_none_are_left_out(posts, tmp_path):
    good, *others = read_posts(posts, "valid")[:3]
    broken = tmp_path / "x.jpg"
    broken.write_text("<html>no picture</html>")
    said = []
    kept = usable([good, type(good)("x", "text", broken, "neutral"), *others], said.append)
    assert [post.key for post in kept] == [good.key, *(post.key for post in others)] and "1 of 4" in said[0]
    with pytest.raises(InputError, match="None of the 1"):
        usable([type(good)("x", "text", broken, "neutral")], said.append)


def test_captions_are_read_or_refused(posts, tmp_path):
    captions = read_captions(posts / "captions.jsonl.gz")
    assert captions["train000"] == ("one colour", "a plane of negative colour", "calm") and len(captions) == 12
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "tone": "a", "content": "b", "emotion": "c"}\n{"id": "2", "tone": "a", "content": " "}\n')
    with pytest.raises(InputError, match="line 2"):
        read_captions(bad)
    (tmp_path / "cut.jsonl.gz").write_bytes((posts / "captions.jsonl.gz").read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read|line"):
        read_captions(tmp_path / "cut.jsonl.gz")
    with pytest.raises(InputError, match="no captions at"):
        read_captions(tmp_path / "absent.jsonl")


@pytest.mark.parametrize("word, read", [("@some_one:", "@user:"), ("http://t.co/abc", "http"), ("https://t.co/…", "http"), ("htt", "http"), ("(@a)", "(@user)"),
                                        ("#GoodFriday", "#GoodFriday"), ("shtt", "shtt"), ("me@home", "me@user"), ("😀", "😀")])
def test_users_and_links_are_read_alike(word, read):
    assert as_read(word) == read


def test_words_of_a_post_keep_their_spelling():
    assert post_words("RT @x: so\nGOOD 😀😀 http://t.co/1") == ("RT", "@x:", "so", "GOOD", "😀", "😀", "http://t.co/1")


def test_class_metrics_against_scikit_learn():
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    found = class_metrics(predicted, truth, CLASSES)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["weighted_f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert [[found["confusion"][a][b] for b in CLASSES] for a in CLASSES] == confusion_matrix(truth, predicted).tolist()
    constant = class_metrics(np.full(200, 2), truth, CLASSES)
    assert constant["per_class"]["negative"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "count": int((truth == 0).sum())}
    for wrong in (([0], [0, 1]), ([], []), ([3], [0])):
        with pytest.raises(ValueError):
            class_metrics(*map(np.array, wrong), CLASSES)


def test_fusion_weight_follows_the_better_path():
    rng, truth = np.random.default_rng(0), np.tile([0, 1, 2], 60)
    good = np.eye(3)[truth] + rng.normal(0, 0.2, (180, 3))
    noise = rng.normal(0, 1, (180, 3))
    assert choose_weight(good, noise, truth) > 0.5 > choose_weight(noise, good, truth)


class Brightness(TinyImage):
    """A stem one can follow: each patch is its mean brightness; it counts how often it is asked."""

    asked = 0

    def prepare(self, rgb):
        return torch.from_numpy(cv2.resize(rgb, (3, 2), interpolation=cv2.INTER_AREA)).permute(2, 0, 1).float() / 255

    def patches(self, pixels, missing=None):
        self.asked += len(pixels)
        return pixels.mean(1).flatten(1)[..., None]


def test_grids_are_made_once_and_go_on_where_they_stopped(posts, tmp_path, monkeypatch):
    monkeypatch.setattr("train.stems.BLOCK", 5)
    train, tower = read_posts(posts, "train"), Brightness(1)
    first = grids(tower, train, 0, 1, tmp_path, "b", lambda line: None)
    assert first[0].shape == (12, 6, 1) and not first[1].any() and tower.asked == 12
    sorted(tmp_path.glob("grids-*"))[0].unlink()
    again = grids(tower, train, 0, 2, tmp_path, "b", lambda line: None)           # the picture as it is needs no seed
    assert tower.asked in (14, 17) and torch.equal(first[0], again[0])
    seen, gone = grids(tower, train, 1, 1, tmp_path, "b", lambda line: None)
    assert 0.05 < gone.float().mean() < 0.6 and not torch.equal(seen, first[0])
    assert torch.equal(seen, grids(Brightness(1), train, 1, 1, tmp_path / "other", "b", lambda line: None)[0]), "a view is fixed by its seed"


def test_mirrored_grid():
    patches, gone = torch.arange(6.0)[:, None], torch.tensor([True, False, False, False, False, True])
    values, mask = mirrored(patches, gone, (2, 3))
    assert values[:, 0].tolist() == [2, 1, 0, 5, 4, 3] and mask.tolist() == [False, False, True, True, False, False]


def test_text_stems_are_what_the_stem_says(tmp_path):
    tower, texts = TinyText(), ["two words", "one", "two words", "and a longer text"]
    with torch.no_grad():
        stems = text_stems(tower, texts, tmp_path, "t")
        assert stems[0] is stems[2] or torch.equal(stems[0], stems[2])
        for text, stem in zip(texts, stems):
            assert torch.allclose(stem.float(), tower.stem([tower.tokenize(post_words(text))])[0][0], atol=1e-2)


def command(posts: Path, folder: Path, *more: str) -> list[str]:
    return ["spro", "--data", str(posts), "--captions", str(posts / "captions.jsonl.gz"), "--out", str(folder / "spro.safetensors"), "--text", "none",
            "--work", str(folder / "work"), "--cache", str(posts / "cache"), "--epochs", "1", "--batch", "4", "--views", "0", *more]


def test_trains_and_evaluates_from_the_command_line(posts, tmp_path, capsys):
    assert main(command(posts, tmp_path)) == 0
    checkpoint = read_checkpoint(tmp_path / "spro.safetensors", "spro")
    assert checkpoint.meta["classes"] == list(CLASSES) and "frozen" in checkpoint.meta["tuned"] and checkpoint.meta["captions"]["file"] == "captions.jsonl.gz"
    assert checkpoint.meta["metrics"]["split"] == "valid" and checkpoint.config["image_weight"] == checkpoint.meta["history"][0]["image_weight"]
    alone = tmp_path / "test-only"                        # a folder that holds nothing but the test rows
    rows = [(post.key, "test", post.label, post.text) for post in read_posts(posts, "test")]
    write_csv(alone / "posts.csv", ("id", "split", "label", "text"), rows)
    os.symlink(posts / "images", alone / "images")
    out = tmp_path / "out.json"
    assert main(["evaluate", str(tmp_path / "spro.safetensors"), "--data", str(alone), "--split", "test", "--rates", "0,0.5,1", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["n"] == 6 and "4511" in report["protocol"] and set(report["rates"]) == {"words", "patches", "both"}
    for figures in (report, *(row for case in report["rates"].values() for row in case)):
        for name in ("image", "text", "fusion"):
            assert {"accuracy", "weighted_f1", "macro_f1", "per_class", "confusion"} == set(figures[name])
    whole, gone = report["rates"]["words"][0], report["rates"]["words"][2]
    assert whole["fusion"] == report["fusion"] and gone["image"] == report["image"]
    assert gone["fusion"] == report["image"], "without a word the fusion is the image path"
    assert report["rates"]["both"][2]["fusion"]["accuracy"] == pytest.approx(1 / 3), "nothing is left: the most frequent class"
    own = tmp_path / "own"                                # the same posts as a table of one's own
    write_csv(own / "labels.csv", ("file", "text", "label", "split"), [(f"images/{key}.jpg", text, label, "test") for key, _, label, text in rows])
    shutil.copytree(posts / "images", own / "images")
    assert main(["evaluate", str(tmp_path / "spro.safetensors"), "--data", str(own), "--split", "test", "--rates", "0", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["fusion"] == report["fusion"]


def test_trains_by_a_configuration_and_its_changes(posts, tmp_path):
    words = command(posts, tmp_path)
    kept = [word for i, word in enumerate(words) if word not in ("--epochs", "--lr") and words[i - 1] not in ("--epochs", "--lr")]
    assert main([*kept, "--config", "spro-mvsa-single", "--seed", "5", "--set", "epochs=1", "batch=6", "highest=0.5", "model.prompts=3", "model.ramp=4"]) == 0
    checkpoint = read_checkpoint(tmp_path / "spro.safetensors", "spro")
    assert (checkpoint.config["prompts"], checkpoint.config["ramp"], checkpoint.config["prompt_depth"]) == (3, 4, 3)
    assert checkpoint.meta["settings"]["highest"] == 0.5 and checkpoint.meta["schedule"]["epochs"] == 1 and checkpoint.meta["seed"] == 5 and checkpoint.meta["schedule"]["ema"] == 0.98


def test_a_table_of_ones_own(posts, tmp_path):
    rows = [(f"pics/{i}.jpg" if i else "pics/none.jpg", f"{WORDS[CLASSES[i % 3]]} {i}", CLASSES[i % 3], f"u{i // 2}") for i in range(20)]
    for file, _, label, _ in rows[1:]:
        picture(tmp_path / file, COLOURS[label])
    write_csv(tmp_path / "labels.csv", ("file", "text", "label", "speaker"), rows)
    said = []
    found = {split: read_posts(tmp_path, split, said.append) for split in ("train", "valid", "test")}
    assert sum(map(len, found.values())) == 19 and len(found["valid"]) == len(found["test"]) == 2 and "pics/none.jpg (no picture)" in said[0]
    assert found["test"][0].image.is_file() and found["test"][0].label in CLASSES
    write_csv(tmp_path / "labels.csv", ("file", "text", "label"), [("a.mp4", "good", 1.5)])
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="labels clips by scores"):
        read_posts(tmp_path, "train")


def test_posts_without_captions_are_refused(posts, tmp_path, capsys):
    some = tmp_path / "some.jsonl"
    some.write_text('{"id": "train000", "tone": "a", "content": "b", "emotion": "c"}\n')
    assert main([*command(posts, tmp_path), "--captions", str(some)]) == 2
    assert "11 training posts have no captions" in capsys.readouterr().err

"""Labelled sets, uploads that mean no good, what is judged right and wrong, intervals, and what is exported."""

import csv
import io
import json
import random
import re
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from tests.study_support import zipped

from msademo.errors import InputError
from msademo.metrics import class_metrics, regression_metrics
from msademo.study import drawing, export, statistics
from msademo.study.archive import Limits, read_upload
from msademo.study.judging import ORDERS, judge, select, shows
from msademo.study.plan import Plan
from msademo.study.sets import CLASSES, Item, folder_sets, inside, parse, part, read_folder_set
from msademo.study.store import Run, Stored

TABLE = "id,file,text,label\na,a.mp4,good film,1.5\nb,sub/b.wav,,-2\nc,,only words,0\n"


def read(text, name="a set"):
    return parse(text.encode() if isinstance(text, str) else text, name, "upload")


# ---- tables ---------------------------------------------------------------------------------------------------------------


def test_a_table_of_clips_and_one_of_posts():
    clips = read(TABLE)
    assert clips.kind == "clip" and [(i.key, i.file, i.text, i.label) for i in clips.items] == [
        ("a", "a.mp4", "good film", 1.5), ("b", "sub/b.wav", "", -2.0), ("c", None, "only words", 0.0)]
    posts = read("image;text;label\nx.jpg;\"semi; colon\";Positive\n;alone;negative\n")
    assert posts.kind == "post" and posts.items[0].text == "semi; colon" and [i.label for i in posts.items] == ["positive", "negative"]
    assert read("file\tlabel\na.mp4\t1\n").items[0].text is None            # no column of words: the speech is recognised


@pytest.mark.parametrize("encode", [lambda t: t.encode("utf-8-sig"), lambda t: t.encode("utf-16"), lambda t: t.encode("gb18030")])
def test_tables_in_the_encodings_people_have(encode):
    assert read(encode("text,label\n很好,2\n")).items[0].text == "很好"


def test_the_fields_own_layouts():
    mosi = read("video_id,clip_id,text,label,annotation,mode\n_dI,3,words,-0.8,Negative,test\n")
    assert mosi.items[0] == Item(0, "_dI/3", "Raw/_dI/3.mp4", "words", -0.8, "test")
    assert read("id,split,label,text\n17,valid,neutral,words\n").items[0].file == "images/17.jpg"


@pytest.mark.parametrize("table, said", [
    ("", "no rows"), ("file,label\n", "no rows"), ("a,b\n1,2\n", "no column called label"), ("file,label\na.mp4,good\n", "line 2 is 'good'"),
    ("file,label\na.mp4,1\nb.mp4,7\n", "line 3 is '7'"), ("file,label\na.mp4,1\nb.mp4,nan\n", "'nan'"), ("file,label\na.mp4,1\nb.mp4,positive\n", "line 3"),
    ("file,label\n../a.mp4,1\n", "not inside"), ("file,label\n/etc/a.mp4,1\n", "not inside"), ("file,label\nC:\\a.mp4,1\n", "not inside"), ("file,label\na.exe,1\n", ".exe"),
    ("file,label\na.jpg,1\n", "clips have scores"), ("file,label\na.mp4,positive\n", "clips have scores"), ("file,label\n,1\n", "neither a file nor words"),
    ("id,text,label\nx,a,1\nx,b,1\n", "'x' stands in the table twice"), ("text,label\na,1,2\n", "more cells"), ("text,label\n\"a,1\n", "quotes"),
    ("text,text,label\na,b,1\n", "same name"), (b"text,label\n\0,1\n", "no text file"), ("text,label\n" + "a" * 20_001 + ",1\n", "20000 characters"),
    ("text,label\n" + "a" * 200_000 + ",1\n", "near line")])
def test_a_wrong_table_is_one_clear_sentence(table, said):
    with pytest.raises(InputError) as caught:
        read(table)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_split_and_number_of_items():
    found = read("text,label,split\n" + "".join(f"w{i},1,{'test' if i % 2 else 'train'}\n" for i in range(20)))
    some = part(found, "test", 4)
    assert len(some.items) == 4 and {i.split for i in some.items} == {"test"} and some == part(found, "test", 4) != part(found, "test", 4, seed=1)
    assert [i.number for i in some.items] == sorted(i.number for i in some.items)
    with pytest.raises(InputError, match="test, train"):
        part(found, "dev")


def test_folder_sets_and_links_that_lead_out(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "labels.csv").write_text("file,label\na.mp4,1\nlink.mp4,2\ngone.mp4,0\n")
    (tmp_path / "one" / "a.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "one" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    assert folder_sets(tmp_path) == {"one": tmp_path / "one" / "labels.csv"} and folder_sets(None) == {}
    assert inside(tmp_path / "one", "a.mp4") and inside(tmp_path / "one", "link.mp4") is None and inside(tmp_path / "one", "../secret.mp4") is None
    found = read_folder_set("one", tmp_path / "one" / "labels.csv")
    assert "2 of 3 files" in found.notes[0] and str(tmp_path) not in found.notes[0]


# ---- uploads --------------------------------------------------------------------------------------------------------------


def unpack(tmp_path, data, limits=Limits(), name="set.zip"):
    path, target = tmp_path / name, tmp_path / "media"
    path.write_bytes(data)
    return read_upload(path, "set", lambda found: target, limits=limits), target


def test_a_zip_is_unpacked_under_names_of_our_own(tmp_path):
    found, target = unpack(tmp_path, zipped({"my set/labels.csv": TABLE, "my set/a.mp4": b"AA", "my set/sub/b.wav": b"BB", "my set/other.mp4": b"no",
                                             "__MACOSX/._labels.csv": b"x"}))
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {"00000.mp4": b"AA", "00001.wav": b"BB"} and not found.notes
    assert [i.file for i in found.items] == ["00000.mp4", "00001.wav", None] and found.origin


def test_names_that_climb_out_write_nothing_outside(tmp_path):
    data = zipped({"labels.csv": "file,label\na.mp4,1\n", "../../a.mp4": b"evil", "/abs.mp4": b"evil", "a.mp4": b"good"})
    _, target = unpack(tmp_path, data)
    assert [p.read_bytes() for p in target.iterdir()] == [b"good"] and {p.name for p in tmp_path.iterdir()} == {"set.zip", "media"}


@pytest.mark.parametrize("limits, files, said", [
    (Limits(members=3), {f"{i}.mp4": b"" for i in range(5)}, "more than 3 files"),
    (Limits(member=1000), {"a.mp4": bytes(2000)}, "split the set"), (Limits(total=1500), {"a.mp4": bytes(1000), "sub/b.wav": bytes(1000)}, "split the set"),
    (Limits(), {"a.mp4": bytes(30_000_000)}, "200 times"), (Limits(directory=300), {"x" * 200 + ".mp4": b""}, "very long names")])
def test_bombs_are_refused(tmp_path, limits, files, said):
    with pytest.raises(InputError, match=said):
        unpack(tmp_path, zipped({"labels.csv": TABLE} | files), limits)


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    data = bytearray(zipped({"labels.csv": TABLE, "a.mp4": random.Random(0).randbytes(5000)}, zipfile.ZIP_STORED))
    at = data.rfind(b"PK\1\2")
    data[at + 24:at + 28] = struct.pack("<I", 10)                           # the list says ten bytes
    found, target = unpack(tmp_path, bytes(data), Limits(member=1000))
    assert "damaged" in found.notes[-1] or all(p.stat().st_size <= 1000 for p in target.iterdir())


def test_broken_and_strange_zips_are_one_sentence(tmp_path):
    good = zipped({"labels.csv": TABLE, "a.mp4": b"A" * 500})
    locked = bytearray(good)
    for sign, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        for found in re.finditer(re.escape(sign), good):
            locked[found.start() + offset] |= 1
    for data in (b"", b"hello", good[:-30], bytes(locked), zipped({"a.mp4": b""}), zipped({"x.csv": TABLE, "y.csv": TABLE}), good[:-22] + b"PK\6\7" + bytes(16) + good[-22:]):
        with pytest.raises(InputError) as caught:
            unpack(tmp_path, data)
        assert "\n" not in str(caught.value)
    rng = random.Random(3)
    for _ in range(60):                                                     # mutated: a set, or a sentence
        data = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            unpack(tmp_path, bytes(data))
        except InputError as error:
            assert "\n" not in str(error)


def test_files_that_nobody_brought(tmp_path):
    found, _ = unpack(tmp_path, zipped({"labels.csv": TABLE, "a.mp4": b"A"}))
    assert "1 of 2 files" in found.notes[0]
    with pytest.raises(InputError, match="None of the files"):
        unpack(tmp_path, zipped({"labels.csv": "file,label\na.mp4,1\n"}))
    with pytest.raises(InputError, match="None of the files"):
        unpack(tmp_path, b"file,label\na.mp4,1\n", name="set.csv")
    assert unpack(tmp_path, b"text,label\nwords,1\n", name="set.csv")[0].kind == "clip"


# ---- right and wrong ------------------------------------------------------------------------------------------------------


def clip(number, label, now, text=None, audio=None, masked=(), other=None, **more):
    entry = {"now": now, "without": {k: v for k, v in (("text", text), ("audio", audio)) if v is not None}, "masked": list(masked)}
    answers = {"pglh": entry} | ({} if other is None else {"pgmf-student": {"now": other, "without": {}, "masked": []}})
    return Stored(Item(number, f"item {number}", None, f"words of {number}", label), {"answers": answers, "words": [], "notes": []}, None, 1.0, "", (), **more)


def post(number, label, fusion, image=None, text=None):
    entry = lambda v: {"now": v, "without": {}, "masked": []}
    return Stored(Item(number, f"post {number}", None, "words", label), {"answers": {"fusion": entry(fusion), "image": entry(image), "text": entry(text)}}, None, 1.0, "", ())


CLIPS = [clip(0, 2.0, 1.8, text=-0.5, audio=1.7, masked=[0.8, 1.3], other=1.0), clip(1, -1.0, 0.5, text=0.2, masked=[0.5], other=-0.5), clip(2, 0.0, 2.4),
         Stored(Item(3, "broken", "x.mp4", "words", 1.0), None, "It cannot be read.", 0.1, "", ())]


def test_errors_flips_and_changes_of_clips():
    rows = [judge("clip", row, "pglh") for row in CLIPS]
    assert [row.error for row in rows] == [pytest.approx(0.2), 1.5, pytest.approx(2.4), None]
    assert [row.wrong_side for row in rows] == [False, True, False, False] and [row.wrong_class for row in rows] == [False, True, True, False]
    assert [row.flips for row in rows] == [("text",), (), (), ()] and rows[0].change == pytest.approx(0.75)
    assert [row.disagree for row in rows] == [False, True, False, False] and rows[0].spread == pytest.approx(0.8) and rows[2].spread is None
    names = lambda **how: [row.number for row in select(rows, "clip", **how)]
    assert names() == [2, 1, 0, 3] and names(order="smallest error") == [0, 1, 2, 3] and names(order="order of the set") == [0, 1, 2, 3]
    assert names(order="most changed under masks")[:2] == [0, 1] and names(order="models furthest apart")[0] == 1
    assert names(show="wrong side") == [1] and names(show="models disagree") == [1] and names(show="flips without words") == [0] and names(show="failed") == [3]
    assert names(cell=("0", "+2")) == [2] and names(search="WORDS of 1") == [1]
    with pytest.raises(InputError):
        select(rows, "clip", show="magic")
    assert set(shows("post")) > {"flips without picture", "picture and words disagree"} and "largest error" in ORDERS


def test_posts_are_judged_by_class():
    row = judge("post", post(0, "negative", [0.2, 0.2, 0.6], image=[0.1, 0.1, 0.8], text=[0.7, 0.2, 0.1]), "fusion")
    assert row.error == pytest.approx(0.8) and row.wrong_class and row.wrong_side and row.disagree and row.spread == pytest.approx(0.7)
    neutral = judge("post", post(1, "neutral", [0.2, 0.2, 0.6]), "fusion")
    assert neutral.wrong_class and not neutral.wrong_side and judge("post", post(1, "neutral", [0.2, 0.2, 0.6]), "image").value is None


# ---- numbers --------------------------------------------------------------------------------------------------------------


def many(count=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(-3, 3, count).round(1)
    return [judge("clip", clip(i, float(label), float(label + rng.normal(0, 1))), "pglh") for i, label in enumerate(labels)]


def test_metrics_are_the_fields_and_intervals_hold_them():
    rows = many()
    found = statistics.metrics("clip", rows)
    wanted = regression_metrics([row.value for row in rows], [row.stored.item.label for row in rows])
    for name, measured in found.items():
        assert measured.value == pytest.approx(wanted[name]) and measured.low <= measured.value <= measured.high and measured.low < measured.high
    errors = np.array([row.error for row in rows])                          # of a mean the interval is known
    assert found["mae"].high - found["mae"].low == pytest.approx(2 * 1.96 * errors.std() / np.sqrt(len(errors)), rel=0.15)
    assert statistics.metrics("clip", rows) == found and statistics.metrics("clip", []) == {}
    few = statistics.metrics("clip", rows[:3])
    assert np.isnan(few["mae"].low) and few["mae"].to_dict()["low"] is None


def test_metrics_of_posts_and_confusion():
    rng = np.random.default_rng(1)
    rows = [judge("post", post(i, CLASSES[i % 3], rng.dirichlet(np.ones(3)).tolist()), "fusion") for i in range(30)]
    wanted = class_metrics([int(np.argmax(row.value)) for row in rows], [i % 3 for i in range(30)], CLASSES)
    assert statistics.metrics("post", rows)["macro_f1"].value == pytest.approx(wanted["macro_f1"])
    assert statistics.confusion("post", rows).tolist() == [[wanted["confusion"][a][b] for b in CLASSES] for a in CLASSES]
    counts = statistics.confusion("clip", [judge("clip", row, "pglh") for row in CLIPS])
    assert counts.sum() == 3 and counts[5, 5] == 1 and counts[3, 5] == 1 and counts[2, 3] == 1


def test_two_runs_are_held_against_each_other_item_by_item():
    first = many()
    better = [replace(row, value=row.stored.item.label + 0.1 * (row.value - row.stored.item.label)) for row in first]
    better = [judge("clip", clip(row.number, row.stored.item.label, row.value), "pglh") for row in better]
    found = statistics.compare("clip", first, better[5:])
    assert found.count == 55 and found.difference["mae"].high < 0 < found.difference["acc7"].low and len(found.better) > len(found.worse)
    same = statistics.compare("clip", first, first)
    assert all(d.value == 0 == d.low == d.high for d in same.difference.values()) and not same.better
    with pytest.raises(InputError, match="in common"):
        statistics.compare("clip", first, [judge("clip", clip(900, 1.0, 1.0), "pglh")])


# ---- drawings and exports -------------------------------------------------------------------------------------------------

NASTY = "=cmd|' /C calc'!A0 <script>alert(1)</script>"
RUN = Run("r", "s", "A <b>run</b>", "set", "clip", "bundled", Plan(), {"pglh": {"file": "pglh.safetensors", "sha256": "ab" * 32}}, "done", "", 0.0, 3, 1, 4, 1.0, ("A note.",))


def test_exports_hold_everything_and_nothing_that_runs():
    stored = [replace(CLIPS[0], item=replace(CLIPS[0].item, text=NASTY), note=NASTY, tags=("irony",)), *CLIPS[1:]]
    rows, there = [judge("clip", row, "pglh") for row in stored], {"pglh": "PGLH", "pgmf-student": "PGMF student"}
    lines = list(csv.DictReader(io.StringIO(export.table(RUN, rows, there).lstrip("\ufeff"))))
    assert len(lines) == 4 and lines[0]["text"].startswith("'=") and lines[0]["note"].startswith("'=") and float(lines[1]["label"]) == -1.0
    assert lines[0]["pglh"] == "1.8" and lines[0]["pglh_without_words"] == "-0.5" and lines[0]["flips_without_words"] == "1" and lines[3]["failed"] == "It cannot be read."
    told = json.loads(export.document(RUN, stored, there))
    assert told["results"]["pglh"]["metrics"]["mae"]["value"] == pytest.approx(1.3667, abs=1e-4) and told["items"][0]["note"] == NASTY
    found = {"pglh": statistics.metrics("clip", rows)}
    page = export.report(RUN, rows, "pglh", found, there, {0: b"\xff\xd8jpeg"})
    assert "<script" not in page and "&lt;script&gt;" in page and "A &lt;b&gt;run" in page and "data:image/jpeg;base64," in page and "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "must not decide about people" in page and "data-pick" not in page


def test_what_can_be_clicked_names_what_it_means():
    rows = [judge("clip", row, "pglh") for row in CLIPS]
    table = drawing.confusion_table("clip", rows, "PGLH", True, ("0", "+2"))
    assert 'data-pick="cell:0:+2"' in table and table.count("aria-pressed=\"true\"") == 1 and table.count("<button") == 3
    points = drawing.scatter("clip", rows, "PGLH", True)
    assert points.count('data-pick="item:') == 3 and points.count('tabindex="0"') == 1 and "1 of 3" in points
    items = drawing.items_table(rows, {}, True, 1, "largest error")
    assert items.count("<tr data-pick") == 4 and 'data-pick="order:most changed under masks"' in items and "It cannot be read." in items
    posts = [judge("post", post(0, "negative", [0.2, 0.2, 0.6], image=[0.1, 0.1, 0.8], text=[0.7, 0.2, 0.1]), "fusion")]
    assert "1 of 1" in drawing.scatter("post", posts, "Together", False)


@pytest.mark.parametrize("wrong", [{"missing": {"smell": 0.5}}, {"missing": {"text": 1.0}}, {"missing": {"text": 2}}, {"models": ("magic",)}, {"masks": 99}, {"mask_ratio": -1}, {"seed": -1}])
def test_a_wrong_plan_is_refused(wrong):
    with pytest.raises(InputError):
        Plan(**wrong)


def test_a_plan_is_kept_as_it_was():
    plan = Plan({"text": 0.5}, ("pglh",), seed=3)
    assert Plan.loads(plan.dumps()) == plan and plan.told("clip") == "50% of the words missing" and plan.ratios("post", image=1.0) == {"text": 0.5, "image": 1.0}

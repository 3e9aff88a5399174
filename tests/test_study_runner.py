"""Runs in the background: progress, cancel, resume, deletion, whose they are, and a process that is killed in the middle of one."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.study_support import QuickAnalyzer, score

from msademo.errors import InputError
from msademo.study import runner as running
from msademo.study.judging import judge
from msademo.study.plan import Plan
from msademo.study.runner import Runner
from msademo.study.sets import parse
from msademo.study.store import MOST_RUNS, Store, owner_of

OWNER = "o" * 64
ROOT = Path(__file__).resolve().parent.parent
SHA = {"pglh": {"file": "pglh.safetensors", "sha256": "0" * 64}}


def a_set(count=6, texts=None):
    texts = texts or [" ".join(["word"] * (i + 1)) for i in range(count)]
    return parse(("text,label\n" + "".join(f"{text},{i % 7 - 3}\n" for i, text in enumerate(texts))).encode(), "words", "upload")


def make(folder, analyzer=None, checkpoints=lambda: SHA):
    store = Store(folder)
    return store, Runner(store, analyzer or QuickAnalyzer(), lambda run, file: None, checkpoints)


def begin(store, runner, found=None, plan=Plan()):
    run_id = store.create(OWNER, found or a_set(), plan, SHA, "a run")
    runner.start(run_id)
    return run_id


def wait_for(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_a_run_goes_through_and_is_what_the_models_say(tmp_path):
    store, runner = make(tmp_path)
    run_id = begin(store, runner, plan=Plan({"audio": 0.5}, masks=2))
    runner.join(20)
    run = store.run(run_id, OWNER)
    assert (runner.state(run), run.done, run.failed, run.total) == ("done", 6, 0, 6) and run.seconds >= 0
    row = store.rows(run)[4]
    own = row.answer["answers"]["pglh"]
    assert own["now"] == score(5, {"text": 0, "audio": 0.5, "vision": 0}) and len(own["masked"]) == 2 and not own["without"]       # words are its only part
    assert own["masked"][0] == score(5, {"text": 0.5, "audio": 0.5, "vision": 0.5}) and judge("clip", row, "pglh").change > 0


def test_items_that_fail_are_told_and_the_others_go_on(tmp_path, caplog):
    store, runner = make(tmp_path)
    found = parse(b"file,text,label\n,explode secretly,1\n,unreadable,1\ngone.mp4,words,1\n,fine words,1\n", "words", "upload")
    run_id = begin(store, runner, found)
    runner.join(20)
    run = store.run(run_id)
    assert (run.state, run.done, run.failed) == ("done", 1, 3)
    errors = [row.error for row in store.rows(run)]
    assert errors == [running.UNEXPECTED, "This file cannot be read.", "Its file is not in the set.", None] and "secretly" not in caplog.text


def test_cancel_and_resume_do_nothing_twice(tmp_path):
    gate, analyzer = threading.Event(), QuickAnalyzer(0.02)
    analyzer.before = lambda words: gate.wait(10) if analyzer.opens == 3 else None
    store, runner = make(tmp_path, analyzer)
    run_id = begin(store, runner)
    wait_for(lambda: analyzer.opens == 3)
    assert runner.state(store.run(run_id)) == "running" and runner.busy
    with pytest.raises(InputError, match="going on"):
        runner.start(run_id)
    store.cancel(run_id, OWNER)
    gate.set()
    runner.join(20)
    run = store.run(run_id)
    assert runner.state(run) == "cancelled" and run.done == 3 and not runner.busy
    runner.start(run_id)
    runner.join(20)
    assert store.run(run_id).done == 6 and analyzer.opens == 6


def test_runs_wait_for_each_other_and_a_waiting_one_can_be_cancelled(tmp_path):
    gate, analyzer = threading.Event(), QuickAnalyzer()
    analyzer.before = lambda words: gate.wait(10)
    store, runner = make(tmp_path, analyzer)
    first, second = begin(store, runner), begin(store, runner)
    assert runner.state(store.run(second)) == "queued"
    store.cancel(second, OWNER)
    gate.set()
    runner.join(20)
    assert store.run(first).done == 6 and store.run(second).done == 0 and runner.state(store.run(second)) == "cancelled"


CHILD = """
import sys
from tests.test_study_runner import make, begin, a_set
from tests.study_support import QuickAnalyzer
store, runner = make(sys.argv[1], QuickAnalyzer(wait=0.15))
print(begin(store, runner, a_set(8)), flush=True)
runner.join()
"""


def test_a_process_killed_in_the_middle_loses_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    try:
        run_id = child.stdout.readline().strip()
        analyzer = QuickAnalyzer()
        store, runner = make(tmp_path, analyzer)
        wait_for(lambda: store.run(run_id).done >= 2)
        assert runner.state(store.run(run_id)) == "running"                 # seen from another process
        with pytest.raises(InputError, match="going on"):
            runner.start(run_id)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    run = store.run(run_id)
    assert runner.state(run) == "interrupted" and 2 <= run.done < 8
    runner.start(run_id)
    runner.join(20)
    end = store.run(run_id)
    assert runner.state(end) == "done" and end.done == 8 and analyzer.opens == 8 - run.done
    assert [row.answer["answers"]["pglh"]["now"] for row in store.rows(end)] == [score(i + 1, dict.fromkeys(("text", "audio", "vision"), 0)) for i in range(8)]


def test_an_item_that_takes_the_server_down_twice_is_left_out(tmp_path):
    store, runner = make(tmp_path)
    run_id = store.create(OWNER, a_set(2), Plan(), SHA, "a run")
    store.begin(run_id, 0), store.begin(run_id, 0)                          # its turn came twice and never ended
    runner.start(run_id)
    runner.join(20)
    assert [row.error for row in store.rows(store.run(run_id))] == [running.STOPPED, None]


def test_other_checkpoints_are_not_mixed_into_a_run(tmp_path):
    store, runner = make(tmp_path, checkpoints=lambda: {"pglh": {"file": "pglh.safetensors", "sha256": "1" * 64}})
    with pytest.raises(InputError, match="other checkpoints"):
        runner.start(store.create(OWNER, a_set(), Plan(), SHA, "a run"))


def test_a_deleted_run_is_gone_with_its_media_and_stops(tmp_path):
    gate, analyzer = threading.Event(), QuickAnalyzer()
    analyzer.before = lambda words: gate.wait(10)
    store, runner = make(tmp_path, analyzer)
    found = parse("text,label\nunmistakable secret words,1\nb,1\nc,1\n".encode(), "words", "upload")
    run_id = begin(store, runner, found)
    run = store.run(run_id)
    store.media(run.set_id).mkdir(parents=True)
    store.remark(run, 0, "a note", ("tag",))
    wait_for(lambda: analyzer.opens == 1)
    store.delete(run_id, OWNER)
    gate.set()
    runner.join(20)
    assert store.runs(OWNER) == [] and not store.media(run.set_id).exists() and not runner.busy and analyzer.opens == 1
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        db.execute("pragma wal_checkpoint(truncate)")
        assert {db.execute(f"select count(*) from {table}").fetchone()[0] for table in ("sets", "items", "runs", "answers", "remarks")} == {0}
    assert b"unmistakable" not in (tmp_path / "study.sqlite").read_bytes()


def test_two_runs_share_a_set_its_notes_and_its_media(tmp_path):
    store, runner = make(tmp_path)
    first, second = begin(store, runner), begin(store, runner, plan=Plan({"text": 0.5}))
    runner.join(20)
    run = store.run(first)
    assert run.set_id == store.run(second).set_id
    store.remark(run, 1, "seen", ("irony", "short"))
    assert store.rows(store.run(second))[1].note == "seen" and store.rows(store.run(second))[1].tags == ("irony", "short")
    store.media(run.set_id).mkdir(parents=True)
    store.delete(first, OWNER)
    assert store.media(run.set_id).exists() and len(store.rows(store.run(second))) == 6


def test_nobody_sees_or_touches_anothers_runs(tmp_path):
    store, runner = make(tmp_path)
    run_id = begin(store, runner)
    runner.join(20)
    for touch in (store.run, store.cancel, store.delete):
        with pytest.raises(InputError, match="no such run"):
            touch(run_id, "x" * 64)
    assert store.runs("x" * 64) == [] and len(store.runs(OWNER)) == 1
    for key in (None, "", "short", 7, "x" * 300):
        with pytest.raises(InputError):
            owner_of(key)
    assert "a key of a visitor" not in owner_of("a key of a visitor, long enough")


def test_where_things_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MSADEMO_DATA", str(tmp_path / "kept"))
    assert Store.from_environment().kept and Store.from_environment().folder == tmp_path / "kept"
    monkeypatch.setenv("MSADEMO_DATA", "off")
    assert not Store.from_environment().kept
    monkeypatch.delenv("MSADEMO_DATA")
    monkeypatch.setenv("SPACE_ID", "someone/space")
    store = Store.from_environment()
    assert not store.kept and store.empty and store.runs(OWNER) == []       # asking makes no folder
    run_id = store.create(OWNER, a_set(), Plan(), SHA, "a run")
    with store._open() as db:
        db.execute("update runs set created = 0")
    store.check_room(OWNER)
    with pytest.raises(InputError):
        store.run(run_id)                                                   # a day has passed


def test_a_damaged_or_unwritable_store_is_one_sentence(tmp_path):
    (tmp_path / "study.sqlite").write_bytes(b"this is no database at all, " * 100)
    with pytest.raises(InputError, match="damaged"):
        Store(tmp_path).runs(OWNER)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "file").create(OWNER, a_set(), Plan(), SHA, "a run")


def test_there_is_an_end_to_the_number_of_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("msademo.study.store.MOST_RUNS", 1)
    store, runner = make(tmp_path)
    store.check_room(OWNER)
    begin(store, runner)
    runner.join(20)
    with pytest.raises(InputError, match="delete some"):
        store.check_room(OWNER)
    assert MOST_RUNS > 1

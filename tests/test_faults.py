"""What breaks around the page: a full disk, a damaged or locked store, a checkpoint that goes, a visitor who hangs up. One sentence, nothing lost, and on it goes."""

import builtins
import errno
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from benchmarks.visitor import Page, Visitor
from tests.study_support import KEY, QuickAnalyzer, zipped
from tests.test_study_runner import OWNER, ROOT, SHA, a_set, begin, make, wait_for
from tests.ui_support import FakeAnalyzer, write_clip

from msademo import inventory
from msademo.analyzer import Analyzer
from msademo.errors import InputError
from msademo.study import archive, store as storing
from msademo.study.desk import Desk
from msademo.study.plan import DONE, FAILED, Plan
from msademo.study.store import Store
from msademo.ui.page import build_demo
from msademo.ui.theme import launch_options


def one_sentence(error) -> str:
    said = str(error.value if hasattr(error, "value") else error)
    assert said.endswith(".") and "\n" not in said and "Traceback" not in said and len(said) < 300, said
    return said


def everything(store, run_id):
    """All that the page reads of a store."""
    for run in store.runs(OWNER):
        store.rows(run)
    store.pictures(run_id, [0, 1])
    store.remark(store.run(run_id, OWNER), 0, "a note", ("tag",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a store with a finished run in it, all in one file, and the run's id."""
    store, runner = make(tmp_path_factory.mktemp("finished"))
    run_id = begin(store, runner, a_set(12, texts=[f"{number} " + "some words " * 40 for number in range(12)]))
    runner.join(60)
    with sqlite3.connect(store.folder / "study.sqlite") as db:
        db.execute("pragma wal_checkpoint(truncate)")
    return store.folder, run_id


@pytest.fixture
def filled(finished, tmp_path):
    """A copy of it to harm: store, id, file."""
    folder = shutil.copytree(finished[0], tmp_path / "data")
    return Store(folder), finished[1], folder / "study.sqlite"


# ---- the store -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [lambda data: data[:100], lambda data: data[:len(data) // 2], lambda data: b"this is no database, whatever it is named. " * 200,
                                   lambda data: data[:4096] + bytes(len(data) - 4096)], ids=["header only", "half", "garbage", "blank"])
def test_a_damaged_store_is_one_sentence_and_stays_as_it_is(filled, spoil):
    store, run_id, path = filled
    broken = spoil(path.read_bytes())
    path.write_bytes(broken)
    with pytest.raises(InputError) as refused:
        everything(store, run_id)
    assert "damaged" in one_sentence(refused) and path.read_bytes() == broken          # whoever wants to mend it finds it so
    path.unlink()                                                                       # as the sentence says
    assert Store(store.folder).runs(OWNER) == []
    begin(*make(store.folder))


def test_whatever_is_changed_in_the_file_is_an_answer_or_one_sentence(filled):
    store, run_id, path = filled
    good, told = path.read_bytes(), 0
    for seed in range(60):
        rng, data = np.random.default_rng(seed), bytearray(good)
        for at in rng.integers(len(data), size=int(rng.integers(1, 400))):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        try:
            everything(store, run_id)
        except InputError as error:
            one_sentence(error)
            told += 1
    assert told > 20


def test_a_store_of_a_newer_version_is_left_alone(filled):
    store, run_id, path = filled
    with sqlite3.connect(path) as db:
        db.execute(f"pragma user_version={storing.VERSION + 1}")
        db.execute("alter table runs add column wonder text")
    for action in (lambda: store.runs(OWNER), lambda: store.create(OWNER, a_set(2), Plan(), SHA, "another"), lambda: store.delete(run_id, OWNER)):
        with pytest.raises(InputError, match="newer version") as refused:
            action()
        one_sentence(refused)
    with sqlite3.connect(path) as db:
        assert db.execute("pragma user_version").fetchone()[0] == storing.VERSION + 1 and db.execute("select count(*) from runs").fetchone()[0] == 1


def test_a_store_that_another_process_holds_is_waited_for(filled, monkeypatch):
    store, run_id, path = filled
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    monkeypatch.setattr(storing, "WAIT_S", 0.05)
    holder.execute("begin exclusive")
    with pytest.raises(InputError, match="busy") as refused:
        store.remark(store.run(run_id), 0, "note", ())
    one_sentence(refused)
    monkeypatch.setattr(storing, "WAIT_S", 20.0)
    threading.Timer(0.3, lambda: holder.execute("commit")).start()
    store.remark(store.run(run_id), 0, "note", ())                  # it waits, and comes through
    assert store.rows(store.run(run_id))[0].note == "note"
    holder.close()


FULL_DISK = """
import os, resource, sys
from tests.test_study_runner import OWNER, SHA, Plan, a_set, make
from msademo.errors import InputError
store, runner = make(sys.argv[1])
run_id = store.create(OWNER, a_set(60), Plan(), SHA, "a run")
room = os.path.getsize(store.folder / "study.sqlite") + 16_384
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    runner.start(run_id)
    runner.join(60)
except InputError as error:
    print(error)
print(run_id)
"""


def test_a_full_disk_stops_a_run_which_goes_on_when_there_is_room(tmp_path):
    """The disk is full for one process only: no file of its may grow much, which the answers do."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    run_id = done.stdout.split()[-1]
    store, runner = make(tmp_path)
    run = store.run(run_id)
    before = {row.item.number: row.answer for row in store.rows(run) if row.answer}
    assert 0 < len(before) < 60 and runner.state(run) in (FAILED, "interrupted") and (run.state != FAILED or "full" in one_sentence(run.error))
    runner.start(run_id)
    runner.join(60)
    run = store.run(run_id)
    assert (run.state, run.done, run.total) == (DONE, 60, 60)
    after = {row.item.number: row.answer for row in store.rows(run)}
    assert all(after[number] == answer for number, answer in before.items())


def test_a_run_that_could_not_be_queued_can_be_begun_again(tmp_path, monkeypatch):
    store, runner = make(tmp_path)
    run_id = store.create(OWNER, a_set(3), Plan(), SHA, "a run")

    def full(*args, **more):
        raise InputError(storing.FULL)

    with monkeypatch.context() as patch:
        patch.setattr(store, "turn", full)
        with pytest.raises(InputError, match="full"):
            runner.start(run_id)
    assert not runner.busy and runner.state(store.run(run_id)) == "interrupted"
    runner.start(run_id)
    runner.join(20)
    assert store.run(run_id).state == DONE


@pytest.mark.parametrize("code, said", [(errno.ENOSPC, "full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")])
def test_locks_on_a_disk_that_cannot_be_written(tmp_path, monkeypatch, code, said):
    store, runner = make(tmp_path)
    run_id = store.create(OWNER, a_set(3), Plan(), SHA, "a run")

    def refuse(*args, **more):
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr("msademo.study.runner.os.open", refuse)
        with pytest.raises(InputError, match=said) as refused:
            runner.start(run_id)
        one_sentence(refused)
        assert [runner.state(run) for run in store.runs(OWNER)] == ["interrupted"]          # the list is there all the same


def test_an_upload_for_which_there_is_no_room_leaves_nothing_behind(tmp_path, monkeypatch):
    desk = Desk(QuickAnalyzer(), Store(tmp_path / "data"))
    monkeypatch.setattr(inventory, "identity", lambda *args: SHA)
    upload = tmp_path / "set.zip"
    upload.write_bytes(zipped({"labels.csv": "file,text,label\na.mp4,good,1\nb.mp4,bad,-1\n", "a.mp4": b"x" * 5000, "b.mp4": b"y" * 5000}))

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "open", lambda path, mode: Full(builtins.open(path, mode)) if "w" in mode else builtins.open(path, mode), raising=False)
        with pytest.raises(InputError, match="full") as refused:
            desk.start(KEY, None, Plan(), str(upload), "mine")
        one_sentence(refused)
    assert not list((tmp_path / "data").glob("media/*")) and desk.runs(KEY) == []
    run_id = desk.start(KEY, None, Plan(), str(upload), "mine")
    desk.runner.join(20)
    assert desk.run(KEY, run_id).done == 2


def test_half_a_letter_is_told_and_opens_nothing(filled):
    store, run_id, _ = filled
    with pytest.raises(InputError, match="half of a letter") as refused:
        store.remark(store.run(run_id), 0, "a note \ud83d", ())
    one_sentence(refused)
    assert storing.owner_of(KEY + "\ud83d") not in (storing.owner_of(KEY), storing.owner_of(KEY + "?"))


def test_media_that_are_deleted_while_they_are_counted(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "media" / "set").mkdir(parents=True)
    (tmp_path / "media" / "set" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "media" / "set" / "there.mp4").write_bytes(b"12345")
    assert store.media_size() == 5


# ---- checkpoints ---------------------------------------------------------------------------------------------------------


def test_checkpoints_that_go_while_the_page_runs(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints, tmp_path / "checkpoints")
    analyzer = Analyzer(folder)
    opened = analyzer.open(None, "What a lovely day it was")
    before = analyzer.analyze(opened, 0.3)
    # Weights are copied out of the file: a mapped one that somebody cuts off would take the process down.
    assert not any(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())
    (folder / "pgmf_teacher.safetensors").unlink()
    (folder / "pglh.safetensors").write_bytes((folder / "pglh.safetensors").read_bytes()[:1000])
    again = analyzer.analyze(opened, 0.3)
    assert {name: p.score for name, p in again.predictions.items()} == {name: p.score for name, p in before.predictions.items()}
    found = {one.file: one for one in inventory.found_in(analyzer)}
    assert "pgmf_teacher.safetensors" not in found and "cut off" in one_sentence(found["pglh.safetensors"].problem)
    for slot, file in (("pgmf-teacher", "pgmf_teacher.safetensors"), ("pglh", "pglh.safetensors")):
        with pytest.raises(InputError) as refused:
            inventory.choose(analyzer, slot, file)
        one_sentence(refused)
    assert analyzer.analyze(opened, 0.3).score == before.score                             # nothing was changed by trying
    with pytest.raises(InputError, match="pglh.safetensors") as refused:
        Analyzer(folder).open(None, "What a lovely day it was")                            # as a server that is started now
    one_sentence(refused)


def test_a_checkpoint_that_goes_between_two_looks(tmp_path, monkeypatch):
    """Listed, and gone before it is read."""
    analyzer = SimpleNamespace(folder=tmp_path, shelf=SimpleNamespace(files={"pglh": "a.safetensors"}), posts=SimpleNamespace(file="spro.safetensors"))
    (tmp_path / "a.safetensors").write_bytes(b"no checkpoint")
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "nowhere")
    assert [one.file for one in inventory.found_in(analyzer)] == ["a.safetensors"]
    monkeypatch.setattr(inventory, "in_use", lambda analyzer: {"pglh": "a.safetensors", "pgmf-student": "b.safetensors"})
    assert list(inventory.identity(analyzer)) == ["pglh"]


# ---- visitors ------------------------------------------------------------------------------------------------------------


class Slow(FakeAnalyzer):
    """Opens a clip only when it may; what it raises can be set."""

    def __init__(self):
        super().__init__()
        self.may, self.inside, self.trouble = threading.Event(), threading.Event(), None

    def open(self, *args, **more):
        self.inside.set()
        assert self.may.wait(30)
        if self.trouble is not None:
            raise self.trouble
        return super().open(*args, **more)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setenv("MSADEMO_DATA", str(folder / "runs"))
        analyzer = Slow()
        demo = build_demo(analyzer)
        _, url, _ = demo.queue(default_concurrency_limit=2, max_size=64).launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield analyzer, Page(url), folder, demo
        demo.close()


@pytest.fixture
def slow(served):
    analyzer = served[0]
    analyzer.may.set(), analyzer.inside.clear()
    analyzer.trouble = None
    return analyzer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Path(write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 1.0))


def analysed(visitor, clip, words, page):
    event = page.event("analyse", "click")
    return visitor.ask(event, page.inputs(event, {page.named["video"]: visitor.upload(clip), page.named["transcript"]: words}))


def test_a_visitor_who_hangs_up_in_the_middle_of_an_upload(served, slow, clip):
    _, page, folder, _ = served
    host, port = page.url.removeprefix("http://").strip("/").split(":")
    before = {path for path in folder.rglob("*") if path.is_file()}
    for _ in range(3):
        with socket.create_connection((host, int(port))) as link:
            link.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n"
                         b'--x\r\nContent-Disposition: form-data; name="files"; filename="half.mp4"\r\n\r\n' + bytes(2_000_000))
    visitor = Visitor(page)
    try:
        assert analysed(visitor, clip, "all is well", page).error is None
    finally:
        visitor.close()
    assert len({path for path in folder.rglob("*") if path.is_file()} - before) == 1           # the last visitor's clip, and no half of another


def test_a_visitor_who_hangs_up_while_the_clip_is_analysed(served, slow, clip):
    _, page, _, demo = served
    slow.may.clear()
    leaving = [Visitor(page) for _ in range(3)]                     # more than work at once
    event = page.event("analyse", "click")
    for visitor in leaving:
        uploaded = visitor.upload(clip)
        assert visitor.begin(event, page.inputs(event, {page.named["video"]: uploaded, page.named["transcript"]: "bye"})).status_code == 200
        threading.Thread(target=lambda visitor=visitor: [*_until_closed(visitor)], daemon=True).start()
    assert slow.inside.wait(20)
    for visitor in leaving:
        visitor.close()
    slow.may.set()
    staying = Visitor(page)
    try:
        answer = analysed(staying, clip, "still here", page)
        assert answer.error is None and "still" in answer.raw and "bye" not in answer.raw
    finally:
        staying.close()
    wait_for(lambda: len(demo._queue) == 0 and not any(demo._queue.active_jobs))


def _until_closed(visitor):
    try:
        yield from visitor.messages()
    except Exception:               # closed from outside, which is what is tried here
        return


def test_an_upload_that_the_disk_does_not_take(served, slow, clip, tmp_path):
    """No file of this process may grow beyond 1 MB for a moment, which is what a full disk looks like."""
    page, folder, large = served[1], served[2], tmp_path / "large.mp4"
    large.write_bytes(bytes(3_000_000))
    before, bounds = {path for path in folder.rglob("*") if path.is_file()}, resource.getrlimit(resource.RLIMIT_FSIZE)
    visitor = Visitor(page)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, bounds[1]))
        with pytest.raises(httpx.HTTPStatusError) as refused:
            visitor.upload(large)
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)
        assert refused.value.response.status_code == 507 and "no room" in one_sentence(refused.value.response.text)
        assert not {path for path in folder.rglob("*") if path.is_file()} - before
        assert analysed(visitor, clip, "roomy again", page).error is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)
        visitor.close()


def test_trouble_of_the_system_is_one_sentence_and_the_next_visitor_is_served(served, slow, clip):
    page, visitor = served[1], Visitor(served[1])
    try:
        for trouble in (OSError(errno.ENOSPC, "No space left on device", "/secret/place"), MemoryError(), ConnectionResetError("peer"), RecursionError()):
            slow.trouble = trouble
            answer = analysed(visitor, clip, "a word", page)
            assert "Traceback" not in answer.raw and "/secret" not in answer.raw and "No space" not in answer.raw
            assert answer.error is None and 'role="alert"' in answer.data[0] and len(answer.warned) == 1
            one_sentence(answer.warned[0])
        slow.trouble = None
        assert "good" in analysed(visitor, clip, "a good word", page).raw
    finally:
        visitor.close()


@pytest.mark.parametrize("name, value", [("text", None), ("text", [0.5]), ("text", "\ud83d"), ("kind", {"a": "\ud83d"}), ("seed", "many"), ("video", {"path": "/etc/passwd"}), ("video", "a\0b")])
def test_values_that_no_page_sends_are_one_sentence_and_not_logged(served, slow, clip, name, value, caplog, capfd):
    page, visitor = served[1], Visitor(served[1])
    try:
        event = page.event("analyse", "click")
        answer = visitor.ask(event, page.inputs(event, {page.named["video"]: visitor.upload(clip), page.named["transcript"]: "my words", page.named[name]: value}))
        said = one_sentence(answer.error or answer.warned[0])
        assert "/work" not in said and "passwd" not in said and "\ufffd" not in said
    finally:
        visitor.close()
    logged = caplog.text + "".join(capfd.readouterr())
    assert "Traceback" not in logged and "my words" not in logged and "passwd" not in logged


def test_half_a_letter_in_words_breaks_no_answer(served, slow, clip):
    visitor = Visitor(served[1])
    try:
        answer = analysed(visitor, clip, "a half \ud83d letter", served[1])
        assert answer.error is None and "letter" in answer.raw
    finally:
        visitor.close()


def test_a_click_without_what_was_clicked(served, slow):
    page, visitor = served[1], Visitor(served[1])
    try:
        event = page.event("study-table", "click")
        assert "reload the page" in one_sentence(visitor.ask(event, page.inputs(event, {page.named["study-key"]: KEY})).warned[0])
    finally:
        visitor.close()

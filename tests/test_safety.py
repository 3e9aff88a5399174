"""What is accepted is checked, counted and cleared away as it is said."""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import fcntl
import gc
import os
import re
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from msademo import limits, temporary
from msademo.errors import InputError
from msademo.limits import Limits
from msademo.study.archive import read_upload
from msademo.study.plan import Plan
from msademo.study.store import Store
from msademo.ui import access, heaps, sweeper, visitors
from msademo.ui.access import Access

ROOT = Path(__file__).resolve().parent.parent


# ---- limits ----------------------------------------------------------------------------------------------------------------


def test_without_variables_the_limits_are_those_documented():
    assert limits.read({}) == Limits() == limits.read({"MSADEMO_UPLOAD_MB": " "})
    documented = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    for limit in dataclasses.fields(Limits):
        row = next(line for line in documented.splitlines() if line.startswith(f"| `MSADEMO_{limit.name.upper()}`"))
        assert row.split("|")[2].strip() == f"{limit.default:g}" and f"{limit.metadata['least']:g} to {limit.metadata['most']:g}" in row
    for name in ("MSADEMO_LOGIN", "MSADEMO_SERVER_KEY", "MSADEMO_PROXIES", "MSADEMO_DATA"):
        assert f"| `{name}`" in documented


def test_the_page_says_every_limit_that_a_visitor_meets():
    from msademo.ui.page import limits_line             # Gradio takes seconds, which the other tests need not wait for
    said = limits_line(Limits(upload_mb=11, clip_seconds=12, megapixels=13, words=14, per_minute=15, queue=16, keep_hours=17))
    assert set(re.findall(r"\d+", said.split(">", 1)[1])) == {str(number) for number in range(11, 18)}


def test_the_owner_s_numbers_are_taken():
    found = limits.read({"MSADEMO_UPLOAD_MB": "20", "MSADEMO_KEEP_HOURS": "0.5", "MSADEMO_PER_MINUTE": " 30 ", "OTHER": "x"})
    assert (found.upload_mb, found.keep_hours, found.per_minute, found.queue) == (20, 0.5, 30, Limits().queue)
    assert found.rest_seconds == 1800 and found.sweep_seconds == 300 and Limits().rest_seconds == 3600
    assert limits.read({"MSADEMO_KEEP_HOURS": "2"}).keep_hours == 2
    assert Limits().pixels == 8192 * 8192 and Limits(megapixels=5).pixels == 5_000_000


@pytest.mark.parametrize("name, value", [("UPLOAD_MB", "much"), ("UPLOAD_MB", "0"), ("UPLOAD_MB", "1.5"), ("CLIP_SECONDS", "61"), ("KEEP_HOURS", "nan"), ("KEEP_HOURS", "-1"),
                                         ("QUEUE", "1e3"), ("WORDS", "True"), ("DECODE_MB", "99999999999")])
def test_a_bad_number_is_one_sentence(name, value):
    with pytest.raises(InputError) as error:
        limits.read({f"MSADEMO_{name}": value})
    told = str(error.value)
    assert told.startswith(f"MSADEMO_{name} (") and "number from" in told and told.count(". ") == 0 and told.endswith(".")


def test_hours_are_said_plainly():
    assert [limits.hours(value) for value in (6.0, 1, 1.5, 0.5, 1 / 60, 0.001)] == ["6 hours", "1 hour", "1.5 hours", "30 minutes", "1 minute", "1 minute"]


def test_the_page_does_not_start_with_a_bad_value():
    started = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env={**os.environ, "MSADEMO_QUEUE": "long"}, capture_output=True, text=True, timeout=600)
    assert started.returncode == 2 and started.stderr.strip().splitlines()[-1].startswith("MSADEMO_QUEUE (") and "Traceback" not in started.stderr


# ---- access ----------------------------------------------------------------------------------------------------------------


def test_the_server_s_key_is_for_visitors_at_home_and_not_on_a_space(monkeypatch):
    assert access.read({}).server_key and not access.read({"SPACE_ID": "a/b"}).server_key
    assert access.read({"SPACE_ID": "a/b", "MSADEMO_SERVER_KEY": "on"}).server_key and not access.read({"MSADEMO_SERVER_KEY": "OFF"}).server_key
    with pytest.raises(InputError, match="must be on or off"):
        access.read({"MSADEMO_SERVER_KEY": "yes"})
    monkeypatch.setenv("SPACE_ID", "a/b")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-owner")
    monkeypatch.setenv("MSADEMO_LOGIN", "anna:correct horse")
    access.current.cache_clear()
    try:
        assert not access.current().server_key and access.current().login
        assert "OPENAI_API_KEY" not in os.environ and "MSADEMO_LOGIN" not in os.environ       # whatever asks, there is nothing to be found
    finally:
        access.current.cache_clear()


@pytest.mark.parametrize("text", ["anna", "anna:", ":password", "anna:short", "anna:long enough,", "anna:long enough,anna:another one", "anna:long enough,ben"])
def test_a_bad_login_is_one_sentence_that_does_not_quote_it(text):
    with pytest.raises(InputError) as error:
        access.read({"MSADEMO_LOGIN": text})
    assert str(error.value) == access.LOGIN and "long enough" not in str(error.value)


def test_logins():
    found = access.read({"MSADEMO_LOGIN": "anna:correct:horse, ben:bätteries 1"})
    assert found.admits("anna", "correct:horse") and found.admits("ben", "bätteries 1")
    for user, password in (("anna", "bätteries 1"), ("anna", "correct"), ("", ""), ("ann", "correct:horse"), ("ANNA", "correct:horse")):
        assert not found.admits(user, password)
    assert "correct" not in repr(found) and not Access().admits("", "")


@pytest.mark.parametrize("text, proxies", [("", 0), ("0", 0), ("2", 2)])
def test_proxies(text, proxies):
    assert access.read({"MSADEMO_PROXIES": text}).proxies == proxies
    assert access.read({"SPACE_ID": "a/b"}).proxies is None
    for wrong in ("-1", "one", "10", "1.5"):
        with pytest.raises(InputError, match="MSADEMO_PROXIES"):
            access.read({"MSADEMO_PROXIES": wrong})


# ---- rates -----------------------------------------------------------------------------------------------------------------


def test_a_minute_s_requests_and_then_a_wait_that_is_true():
    now = [0.0]
    rates = visitors.Rates(lambda: now[0])
    ask = lambda cost=1, key="a": rates.ask(cost, ((key,), 6))
    assert [ask() for _ in range(6)] == [0] * 6
    assert ask() == 10 and ask(2) == 20 and ask(key="b") == 0
    now[0] = 9.9
    assert ask() == 1
    now[0] = 10.0
    assert ask() == 0 and ask() == 10
    now[0] = 1000.0
    assert ask(6) == 0 and ask() == 10                          # a long rest saves up a minute and no more
    now[0] = 2000.0
    assert ask(50) == 0                                         # what costs more than a minute has waits for a full one
    assert ask(0) == 0


def test_a_refusal_takes_nothing_and_the_address_counts_with_the_session():
    now = [0.0]
    rates = visitors.Rates(lambda: now[0])
    both = lambda session: rates.ask(1, (("address", "x"), 2), (("session", session), 1))
    assert both("a") == 0 and both("a") > 0 and both("b") == 0 and both("c") > 0
    now[0] = 30.0
    assert both("c") == 0


def test_the_book_of_visitors_stays_bounded(monkeypatch):
    monkeypatch.setattr(visitors, "REMEMBERED", 100)
    rates = visitors.Rates()
    for number in range(1000):
        rates.ask(1, ((number,), 1))
    assert len(rates._buckets) == 100


# ---- what goes -------------------------------------------------------------------------------------------------------------


def test_old_uploads_go_and_new_ones_stay(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("not ours")
    uploads = tmp_path / "uploads"
    for name in ("old/talk.mp4", "new/talk.mp4", "half-an-upload.tmp"):
        (uploads / name).parent.mkdir(parents=True, exist_ok=True)
        (uploads / name).write_text("x")
    (uploads / "old" / "link").symlink_to(outside)
    (uploads / "old" / "folder").symlink_to(tmp_path)
    now = time.time()
    assert sweeper.old_files(uploads, 3600, now) == 0 and (uploads / "old" / "talk.mp4").exists()
    assert sweeper.old_files(uploads, 3600, now + 3601) >= 3
    assert outside.exists() and uploads.exists() and not list(uploads.rglob("*"))
    assert sweeper.old_files(tmp_path / "nowhere", 1, now) == 0


def test_uploads_and_sessions_of_a_page_go_within_the_stated_time(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(limits, "current", lambda: Limits(keep_hours=0.001))          # 3.6 s
    from gradio.state_holder import StateHolder
    holder = StateHolder()
    holder.session_data |= {"old": object(), "new": object()}
    holder.time_last_used |= {"old": datetime.datetime.now() - datetime.timedelta(seconds=5), "new": datetime.datetime.now()}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "talk.mp4").write_text("x")
    tidied = []
    demo, tidy = SimpleNamespace(state_holder=holder), lambda: tidied.append(True)
    sweeper.sweep(demo, tidy)
    assert list(holder.session_data) == ["new"] and (tmp_path / "a" / "talk.mp4").exists() and tidied
    time.sleep(4)
    sweeper.sweep(demo, tidy)
    assert not holder.session_data and not holder.time_last_used and not (tmp_path / "a" / "talk.mp4").exists()


def test_what_a_study_unpacked_goes_with_its_run(monkeypatch):
    store = Store(None)
    found = read_upload(_table(store.folder), "Mine", lambda found: store.folder)
    run = store.create("me", found, Plan(), {}, "Run")
    media = store.media(store.set_id("me", found))
    media.mkdir(parents=True)
    (media / "00000.mp4").write_text("x")
    assert temporary.folder() in store.folder.parents and store.folder.parent.stat().st_mode & 0o077 == 0
    store.tidy()
    assert store.run(run, "me") and media.exists()
    monkeypatch.setattr(limits, "current", lambda: Limits(run_hours=0.001))
    time.sleep(4)
    sweeper.sweep(SimpleNamespace(), store.tidy)
    assert not store.runs("me") and not media.exists()


def _table(folder: Path) -> Path:
    (folder / "labels.csv").write_text("text,label\nso good,2\nso bad,-2\n")
    return folder / "labels.csv"


def test_what_a_killed_server_left_is_cleared_away_by_the_next(tmp_path):
    for name in ("msademo-dead", "msademo-alive", "msademo-foreign", "other"):
        (tmp_path / name / "uploads").mkdir(parents=True)
        (tmp_path / name / "uploads" / "talk.mp4").write_text("x")
        if name != "msademo-foreign":
            (tmp_path / name / temporary.LOCK).touch()
    with open(tmp_path / "msademo-alive" / temporary.LOCK) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert temporary.clear_dead(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["msademo-alive", "msademo-foreign", "other"]


def test_a_process_that_ends_leaves_nothing(tmp_path):
    code = "from msademo import temporary\nprint(temporary.folder())\n(temporary.folder() / 'x').write_text('x')\nassert temporary.folder().stat().st_mode & 0o777 == 0o700"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=120)
    assert made.stdout.strip().startswith(str(tmp_path)) and not list(tmp_path.iterdir())


def test_large_blocks_leave_no_holes_unless_the_owner_says_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr(heaps.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda option, value: asked.append((option, value))))
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    heaps.share_memory()
    assert asked == [(-8, 2)]
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    heaps.share_memory()
    assert asked[1:] == [(-8, 2), (-3, 2 << 20)]


@pytest.mark.skipif(not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_was_freed_goes_back_to_the_system():
    code = """
import ctypes, time
from msademo.ui import heaps
held = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) / 1024
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(2000)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 100_000)
for block in blocks[:-1]:
    libc.free(block)
full, over = held(), heaps.keep_trimmed(0.05)
end = time.monotonic() + 20
while held() > full - 150 and time.monotonic() < end:
    time.sleep(0.05)
print(full - held())
over.set()
"""
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert float(made.stdout) > 150


def test_what_nobody_uses_any_more_is_collected_though_it_was_there_early():
    class Ring:
        pass

    def ring() -> weakref.ref:
        made = Ring()
        made.itself = made
        return weakref.ref(made)

    gc.disable()
    try:
        early = ring()
        heaps.settle()
        assert early() is None
        kept = Ring()
        kept.itself, early = kept, weakref.ref(kept)
        heaps.settle()
        assert gc.get_freeze_count() > 0
        del kept
        gc.collect()
        assert early() is not None          # it is not looked at,
        heaps.settle()
        assert early() is None              # until what is there is settled anew
        late, over = ring(), heaps.keep_trimmed(0.02)
        end = time.monotonic() + 10
        while late() is not None and time.monotonic() < end:
            time.sleep(0.02)
        over.set()
        assert late() is None
    finally:
        gc.enable(), gc.unfreeze()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heaps.ctypes, "CDLL", lambda name: SimpleNamespace())
    heaps.share_memory()
    collected = []
    monkeypatch.setattr(heaps.gc, "collect", lambda: collected.append(True))
    over, end = heaps.keep_trimmed(0.01), time.monotonic() + 10
    while len(collected) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    over.set()
    assert len(collected) >= 3              # it goes on, though there is nothing to trim with

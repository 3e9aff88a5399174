"""Sets, runs, answers and notes in one SQLite file, so that a closed page and a killed server lose nothing.

Every run belongs to whoever holds the key it was made under; of the key only a hash is kept. What is deleted is overwritten.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Iterator
from uuid import uuid4

from msademo import limits, temporary
from msademo.errors import InputError
from msademo.study.plan import AT_WORK, CANCELLED, QUEUED, RUNNING, Plan
from msademo.study.sets import Item, LabelledSet

FOLDER = Path(__file__).resolve().parent.parent.parent / ".msademo"
VERSION = 1
MOST_RUNS = 60              # of one owner
WAIT_S = 30.0               # for another process that is writing
SCHEMA = """
create table if not exists sets (id text primary key, owner text not null, name text not null, kind text not null, source text not null,
  notes text not null);
create table if not exists items (set_id text not null references sets on delete cascade, number integer not null, key text not null, file text,
  text text, label text not null, primary key (set_id, number));
create table if not exists remarks (set_id text not null references sets on delete cascade, number integer not null, note text not null,
  tags text not null, primary key (set_id, number));
create table if not exists runs (id text primary key, owner text not null, set_id text not null references sets on delete cascade, name text not null,
  plan text not null, checkpoints text not null, state text not null, error text not null default '', created real not null);
create table if not exists answers (run_id text not null references runs on delete cascade, number integer not null, tries integer not null default 0,
  answer text, error text, seconds real, picture blob, primary key (run_id, number));
create index if not exists runs_of on runs (owner, created);
"""


UNWRITABLE = "The folder for runs cannot be written; set MSADEMO_DATA to one that can."
FULL = "The server's disk is full or its store is busy; try again in a while."
DAMAGED = "The store of runs is damaged (study.sqlite in the folder MSADEMO_DATA); move the file away and start again."
NEWER = "The store of runs was written by a newer version of this program; use that version, or set MSADEMO_DATA to another folder."


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's code, without the details of what kind of input or output failed."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _why(error: sqlite3.DatabaseError) -> str:
    """What to tell of SQLite's error. Only a file that is really damaged is one to move away: a full disk is no reason to lose runs."""
    code = _code(error)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM):
        return FULL
    return UNWRITABLE if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) else DAMAGED


def _set_up(db: sqlite3.Connection) -> None:
    """Make the tables. Where two processes change the way of writing at once, SQLite tells one of them at once that the file is busy."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            db.executescript(f"pragma journal_mode=wal; {SCHEMA} pragma user_version={VERSION};")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def unwritable(error: OSError) -> InputError:
    """One sentence on a folder that cannot be written, or whose disk is full."""
    return InputError(FULL if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else UNWRITABLE)


@dataclass(frozen=True)
class Run:
    """A run as it stands. checkpoints: file name and hash by slot, as it was started. done, failed, total: items; seconds: mean of those done."""

    id: str
    set_id: str
    name: str
    set_name: str
    kind: str
    source: str
    plan: Plan
    checkpoints: dict
    state: str
    error: str
    created: float
    done: int
    failed: int
    total: int
    seconds: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """An item with what a run says of it. answer: as measure.py writes it; error: one sentence. Both None before its turn."""

    item: Item
    answer: dict | None
    error: str | None
    seconds: float | None
    note: str
    tags: tuple[str, ...]


def owner_of(key: str) -> str:
    """What stands in the store for a visitor's key. InputError without one: nothing is shared by mistake."""
    if not isinstance(key, str) or len(key) < 16 or len(key) > 200:
        raise InputError("The key to your runs is missing or too short; reload the page, or paste the key again.")
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def when(seconds: float) -> str:
    """A moment in the server's time, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:                           # somebody deleted the run meanwhile
        return 0


class Store:
    """folder: where everything lies; None = a temporary one that goes when the server stops, and whose runs go after limits.run_hours."""

    def __init__(self, folder: str | os.PathLike | None):
        self.kept = folder is not None
        self._folder = None if folder is None else Path(folder)

    @classmethod
    def from_environment(cls) -> "Store":
        """MSADEMO_DATA names the folder ("off": keep nothing). Without it, .msademo beside the program, and nothing on a Space."""
        given = os.environ.get("MSADEMO_DATA", "").strip()
        if given:
            return cls(None if given.lower() == "off" else given)
        return cls(None if os.environ.get("SPACE_ID") else FOLDER)

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="runs-", dir=temporary.folder()))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    @property
    def empty(self) -> bool:
        """Was nothing ever written? Asking creates no folder."""
        return self._folder is None or not (self._folder / "study.sqlite").is_file()

    def media(self, set_id: str) -> Path:
        return self.folder / "media" / set_id

    def media_size(self) -> int:
        """Bytes of all uploaded media."""
        return 0 if self._folder is None else sum(_size(path) for path in (self.folder / "media").glob("*/*"))

    def lock(self, run_id: str) -> Path:
        return self.folder / "locks" / run_id

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each piece of work: any thread, any process. Committed at the end, or not at all."""
        db = None
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True, mode=0o700)
            db = sqlite3.connect(self.folder / "study.sqlite", timeout=WAIT_S)
            db.row_factory = sqlite3.Row
            db.executescript("pragma foreign_keys=on; pragma secure_delete=on; pragma synchronous=normal;")
            version = db.execute("pragma user_version").fetchone()[0]
            if version > VERSION:                       # its tables may mean something else
                raise InputError(NEWER)
            if version != VERSION:
                _set_up(db)
            with db:
                yield db
        except sqlite3.IntegrityError as error:
            raise InputError("This run was deleted meanwhile; choose another.") from error
        except sqlite3.DatabaseError as error:
            raise InputError(_why(error)) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:         # what we wrote is JSON, and SQLite's own messages quote what they met
            raise InputError(DAMAGED) from error
        except UnicodeEncodeError as error:
            raise InputError("There is half of a letter in the text, which cannot be kept; type it again.") from error
        except OSError as error:
            raise unwritable(error) from error
        finally:
            if db is not None:
                db.close()

    # ---- sets and runs -----------------------------------------------------------------------------------------------------

    def set_id(self, owner: str, found: LabelledSet) -> str:
        """Of the same set of the same owner always the same."""
        return hashlib.sha256(f"{owner} {found.digest}".encode()).hexdigest()[:24]

    def create(self, owner: str, found: LabelledSet, plan: Plan, checkpoints: dict, name: str) -> str:
        """A new run over a set, queued; the set is kept once however often it is run. Gives the run's id."""
        set_id, run_id = self.set_id(owner, found), uuid4().hex
        with self._open() as db:
            db.execute("insert or ignore into sets values (?, ?, ?, ?, ?, ?)", (set_id, owner, found.name, found.kind, found.source, json.dumps(found.notes)))
            db.executemany("insert or ignore into items values (?, ?, ?, ?, ?, ?)",
                           [(set_id, i.number, i.key, i.file, i.text, json.dumps(i.label)) for i in found.items])
            db.execute("insert into runs (id, owner, set_id, name, plan, checkpoints, state, created) values (?, ?, ?, ?, ?, ?, ?, ?)",
                       (run_id, owner, set_id, name, plan.dumps(), json.dumps(checkpoints), QUEUED, time.time()))
        return run_id

    def check_room(self, owner: str) -> None:
        """InputError when an owner has too many runs for another; asked before anything is unpacked."""
        self.tidy()
        if len(self.runs(owner)) >= MOST_RUNS:
            raise InputError(f"There are {MOST_RUNS} runs already; delete some first.")

    _RUNS = """select r.*, s.name set_name, s.kind, s.source, s.notes,
      (select count(*) from items i where i.set_id = r.set_id) total,
      (select count(*) from answers a where a.run_id = r.id and a.answer is not null) done,
      (select count(*) from answers a where a.run_id = r.id and a.error is not null) failed,
      (select avg(seconds) from answers a where a.run_id = r.id and a.answer is not null) mean from runs r join sets s on s.id = r.set_id"""

    @staticmethod
    def _run(row: sqlite3.Row) -> Run:
        return Run(row["id"], row["set_id"], row["name"], row["set_name"], row["kind"], row["source"], Plan.loads(row["plan"]), json.loads(row["checkpoints"]),
                   row["state"], row["error"], row["created"], row["done"], row["failed"], row["total"], row["mean"], tuple(json.loads(row["notes"])))

    def runs(self, owner: str) -> list[Run]:
        """The newest first."""
        if self.empty:
            return []
        with self._open() as db:
            return [self._run(row) for row in db.execute(f"{self._RUNS} where r.owner = ? order by r.created desc", (owner,))]

    def run(self, run_id: str, owner: str | None = None) -> Run:
        """One run; with an owner only if it is theirs. Somebody else's run and one that never was are told alike."""
        if not self.empty and isinstance(run_id, str):
            with self._open() as db:
                row = db.execute(f"{self._RUNS} where r.id = ? and (? is null or r.owner = ?)", (run_id, owner, owner)).fetchone()
                if row is not None:
                    return self._run(row)
        raise InputError("There is no such run; it may have been deleted.")

    def delete(self, run_id: str, owner: str) -> None:
        """A run with its answers; with the last run of a set also the set, its notes and its media."""
        run = self.run(run_id, owner)
        with self._open() as db:
            db.execute("delete from runs where id = ?", (run_id,))
            last = db.execute("delete from sets where id = ? and not exists (select 1 from runs where set_id = ?)", (run.set_id, run.set_id)).rowcount
        self.lock(run_id).unlink(missing_ok=True)
        if last:
            shutil.rmtree(self.media(run.set_id), ignore_errors=True)

    def tidy(self) -> None:
        """Where nothing is to be kept, runs that have rested long enough go."""
        if self.kept or self.empty:
            return
        with self._open() as db:
            old = db.execute("select id, owner from runs where created < ?", (time.time() - 3600 * limits.current().run_hours,)).fetchall()
        for row in old:
            self.delete(row["id"], row["owner"])

    def turn(self, run_id: str, state: str, error: str = "", only_from: str | None = None) -> bool:
        """Change a run's state, if it is the one named; tells whether it was changed."""
        with self._open() as db:
            return db.execute("update runs set state = ?, error = ? where id = ? and (? is null or state = ?)",
                              (state, error, run_id, only_from, only_from)).rowcount > 0

    def cancel(self, run_id: str, owner: str) -> None:
        """Ask whoever works at a run to stop before the next item."""
        self.run(run_id, owner)
        with self._open() as db:
            db.execute(f"update runs set state = ? where id = ? and state in {AT_WORK}", (CANCELLED, run_id))

    def still_wanted(self, run_id: str) -> bool:
        with self._open() as db:
            row = db.execute("select state from runs where id = ?", (run_id,)).fetchone()
        return row is not None and row["state"] == RUNNING

    # ---- items and answers -------------------------------------------------------------------------------------------------

    def rows(self, run: Run) -> list[Stored]:
        """All items of a run in the table's order, answered or not."""
        with self._open() as db:
            found = db.execute("""select i.*, a.answer, a.error, a.seconds, m.note, m.tags from items i
              left join answers a on a.run_id = ? and a.number = i.number left join remarks m on m.set_id = i.set_id and m.number = i.number
              where i.set_id = ? order by i.number""", (run.id, run.set_id))
            return [Stored(Item(row["number"], row["key"], row["file"], row["text"], json.loads(row["label"])), json.loads(row["answer"] or "null"), row["error"],
                           row["seconds"], row["note"] or "", tuple(json.loads(row["tags"] or "[]"))) for row in found]

    def begin(self, run_id: str, number: int) -> int:
        """Say that an item's turn has come; gives how often it had come before without an end."""
        with self._open() as db:
            db.execute("insert into answers (run_id, number, tries) values (?, ?, 1) on conflict do update set tries = tries + 1", (run_id, number))
            return db.execute("select tries from answers where run_id = ? and number = ?", (run_id, number)).fetchone()[0] - 1

    def finish(self, run_id: str, number: int, answer: dict | None, error: str | None, seconds: float, picture: bytes | None) -> None:
        with self._open() as db:
            db.execute("update answers set answer = ?, error = ?, seconds = ?, picture = ? where run_id = ? and number = ?",
                       (None if answer is None else json.dumps(answer), error, seconds, picture, run_id, number))

    def pictures(self, run_id: str, numbers: list[int]) -> dict[int, bytes]:
        """JPEGs by the number of the item."""
        marks = ",".join("?" * len(numbers))
        with self._open() as db:
            found = db.execute(f"select number, picture from answers where run_id = ? and picture is not null and number in ({marks})", (run_id, *numbers))
            return {row["number"]: row["picture"] for row in found}

    def remark(self, run: Run, number: int, note: str, tags: tuple[str, ...]) -> None:
        """Note and tags of an item; they belong to the set, so every run over it shows them."""
        with self._open() as db:
            db.execute("insert into remarks values (?, ?, ?, ?) on conflict do update set note = excluded.note, tags = excluded.tags",
                       (run.set_id, number, note, json.dumps(tags)))

"""What the page asks for: the sets there are, a run over one of them, and its rows. Everything is asked with a visitor's key."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Callable
from uuid import uuid4

from msademo import inventory, limits
from msademo.errors import InputError
from msademo.limits import hours
from msademo.options import MODELS
from msademo.study.archive import Limits, read_upload
from msademo.study.judging import Judged, judge
from msademo.study.plan import ANSWERS, LONGEST_NAME, Plan
from msademo.study.runner import Runner
from msademo.study.sets import CLIP, LabelledSet, folder_sets, inside, part, read_folder_set
from msademo.study.store import Run, Store, Stored, owner_of

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
BUNDLED = {"Example clips": "clips.csv", "Example posts": "posts.csv"}
KEPT = 32
QUOTA = {True: 20_000_000_000, False: 4_000_000_000}         # bytes of everybody's unpacked media, where they are kept and where not
PUBLIC_ITEMS = 300          # items of a run where nothing is kept, which is where many strangers share one machine
LONGEST_NOTE, MOST_TAGS, LONGEST_TAG = 4000, 12, 40


def settle(fresh: Path, final: Path) -> None:
    """Give unpacked media their place. The very same set may be there already and in use, or come from another process just now: then that one stays."""
    try:
        fresh.rename(final)
    except OSError:
        if not final.is_dir():
            raise


class Desk:
    """sets: a folder of the server with sets in it, or None."""

    def __init__(self, analyzer, store: Store | None = None, sets: str | Path | None = None, limits: Limits = Limits()):
        self.analyzer, self.store, self.limits = analyzer, store or Store.from_environment(), limits
        self._folder = None if sets is None else Path(sets)
        self.remembered: OrderedDict = OrderedDict()        # what takes long to work out of a run, by run and items done
        self.runner = Runner(self.store, analyzer, self.media, lambda: inventory.identity(analyzer))

    # ---- sets --------------------------------------------------------------------------------------------------------------

    def sets(self) -> dict[str, str]:
        """What people call a set -> what to ask for it by. Bundled ones first, then those of the server's folder."""
        bundled = {title: f"bundled:{title}" for title, table in BUNDLED.items() if (EXAMPLES / "sets" / table).is_file()}
        return bundled | {f"{name} (on the server's disk)": f"folder:{name}" for name in folder_sets(self._folder)}

    def _read(self, owner: str, asked: str | None, upload: str | None, name: str, split: str, most: int | None, say) -> LabelledSet:
        if upload:
            return self._unpack(owner, upload, name, split, most, say)
        source, _, title = (asked or "").partition(":")
        if source == "bundled" and title in BUNDLED:
            return part(read_folder_set(title, EXAMPLES / "sets" / BUNDLED[title], "bundled", EXAMPLES), split, most)
        table = folder_sets(self._folder).get(title) if source == "folder" else None
        if table is None:
            raise InputError("No set was chosen; choose one of the list, or upload a .zip with a table and its media.")
        return part(read_folder_set(title, table), split, most)

    def _unpack(self, owner: str, upload: str, name: str, split: str, most: int | None, say) -> LabelledSet:
        """An upload's media go to a folder that nobody reads yet, and get their place when all went well."""
        left = QUOTA[self.store.kept] - self.store.media_size()
        if left < self.limits.member:
            raise InputError("The server has no room for more uploads just now; try again later, or delete runs that you do not need.")
        fresh = self.store.folder / "media" / f"new-{uuid4().hex}"
        try:
            found = read_upload(upload, name, lambda found: fresh, split, most, replace(self.limits, total=min(self.limits.total, left)), say)
            if fresh.is_dir():
                settle(fresh, self.store.media(self.store.set_id(owner, found)))
            return found
        except OSError as error:
            raise InputError("The upload could not be read or stored; the server's disk may be full.") from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def media(self, run: Run, file: str) -> Path | None:
        """The media file of an item, never outside its set's folder."""
        if run.source == "bundled":
            return inside(EXAMPLES, file)
        if run.source == "upload":
            return inside(self.store.media(run.set_id), file)
        table = folder_sets(self._folder).get(run.set_name)
        return None if table is None else inside(table.parent, file)

    # ---- runs --------------------------------------------------------------------------------------------------------------

    def start(self, key: str, asked: str | None, plan: Plan, upload: str | None = None, title: str = "", split: str = "", most: int | None = None,
              name: str = "", say: Callable[[str, float], None] = lambda what, share: None) -> str:
        """A new run over a set, begun in the background; gives its id. title: what an uploaded set is called; name: what the run is."""
        owner = owner_of(key)
        self.store.check_room(owner)
        if most is not None and most < 1:
            raise InputError("At least one item must be analysed; leave the number empty for all.")
        say("Reading the set", 0.05)
        found = self._read(owner, asked, upload, (title or "Uploaded set")[:LONGEST_NAME], split.strip().lower(), most, say)
        try:
            used = self._used(found, plan)
            name = name.strip()[:LONGEST_NAME] or f"{found.name}, {plan.told(found.kind)}"
            run_id = self.store.create(owner, found, plan, used, name)
        except InputError:
            set_id = self.store.set_id(owner, found)
            if all(run.set_id != set_id for run in self.store.runs(owner)):       # nothing unpacked is left behind without a run
                shutil.rmtree(self.store.media(set_id), ignore_errors=True)
            raise
        self.runner.start(run_id)
        return run_id

    def _used(self, found: LabelledSet, plan: Plan) -> dict:
        """The checkpoints a run over the set asks, as in use now. InputError when it may not be made or one is absent."""
        if not self.store.kept and len(found.items) > PUBLIC_ITEMS:
            raise InputError(f"The set has {len(found.items)} items, and on this shared server a run may have {PUBLIC_ITEMS}; give a smaller number under What to ask.")
        if found.kind != CLIP:
            if not self.analyzer.posts.available:
                raise InputError("Posts need the checkpoint spro.safetensors, which is not here; train it with `python -m train spro` or restore it.")
            return inventory.identity(self.analyzer, ("text", "face", inventory.SPRO))
        used = inventory.identity(self.analyzer, ("text", "face", "voice", *(plan.models or MODELS)))
        absent = [name for name in plan.models if name not in used]
        if absent:
            raise InputError(f"The checkpoint of {absent[0]} is not here; choose other models.")
        return used

    def runs(self, key: str) -> list[Run]:
        return [self._stated(run) for run in self.store.runs(owner_of(key))]

    def run(self, key: str, run_id: str) -> Run:
        return self._stated(self.store.run(run_id, owner_of(key)))

    def _stated(self, run: Run) -> Run:
        return replace(run, state=self.runner.state(run))

    def cancel(self, key: str, run_id: str) -> None:
        self.store.cancel(run_id, owner_of(key))

    def resume(self, key: str, run_id: str) -> None:
        self.store.run(run_id, owner_of(key))
        self.runner.start(run_id)

    def delete(self, key: str, run_id: str) -> None:
        self.store.delete(run_id, owner_of(key))

    def remember(self, key: tuple, value) -> None:
        self.remembered[key] = value
        while len(self.remembered) > KEPT:
            self.remembered.popitem(last=False)

    # ---- rows --------------------------------------------------------------------------------------------------------------

    def who(self, run: Run, rows: list[Stored]) -> dict[str, str]:
        """Who answered in a run -> what people call it."""
        found = {name for row in rows if row.answer for name in row.answer["answers"]}
        return {name: title for name, title in ANSWERS[run.kind].items() if name in found}

    def judged(self, run: Run, who: str | None = None) -> tuple[list[Judged], str, dict[str, str]]:
        """All rows of a run under one who answers (the first, where there is no such), its name, and all there are."""
        rows = self.store.rows(run)
        there = self.who(run, rows)
        who = who if who in there else next(iter(there), next(iter(ANSWERS[run.kind])))
        return [judge(run.kind, row, who) for row in rows], who, there

    def remark(self, key: str, run_id: str, number: int, note: str, tags: str) -> None:
        """Keep a note and tags (with commas between them) of an item."""
        run = self.run(key, run_id)
        named = tuple(dict.fromkeys(tag.strip() for tag in (tags or "").split(",") if tag.strip()))
        if len(note or "") > LONGEST_NOTE or len(named) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in named):
            raise InputError(f"A note may have {LONGEST_NOTE} characters, an item {MOST_TAGS} tags of {LONGEST_TAG} characters; shorten them.")
        self.store.remark(run, int(number), (note or "").strip(), named)

    def kept_where(self) -> str:
        """What becomes of a visitor's runs, in words."""
        if self.store.kept:
            return (f"Runs, notes and uploaded media are kept on this server until you delete them (copies that the page made of them go after {hours(limits.current().keep_hours)}), and "
                    "only this browser, or whoever has its key, sees them.")
        return (f"Nothing is kept for good here: runs, notes and uploaded media are gone when the server restarts, or after {hours(limits.current().run_hours)}; "
                "export what you want to keep. Only this browser, or whoever has its key, sees them.")


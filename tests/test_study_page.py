"""The Errors tab: its events one by one, and what of the server can be reached over HTTP."""

import json
import re
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from gradio_client import Client
from tests.study_support import KEY, OTHER, zipped
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.study.desk import EXAMPLES, Desk
from msademo.study.plan import Plan
from msademo.study.sets import read_folder_set
from msademo.study.store import Store, owner_of
from msademo.ui import study_item, study_view
from msademo.ui.guard import UNEXPECTED
from msademo.ui.page import build_demo
from msademo.ui.study_view import Marks, picked

CLIPS = "bundled:Example clips"
VIEW = ("pglh", "all", "largest error", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """analyzer, demo, and events(name) of the Errors tab."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSADEMO_DATA", str(folder))
        analyzer = FakeAnalyzer()
        demo = build_demo(analyzer)
    events = {f.fn.__name__: f.fn for f in demo.fns.values() if f.fn and f.fn.__module__ == "msademo.ui.study_tab"}
    desk = events["start"].__wrapped__.__closure__[[*events["start"].__wrapped__.__code__.co_freevars].index("desk")].cell_contents
    return SimpleNamespace(analyzer=analyzer, demo=demo, events=events, desk=desk, folder=folder)


@pytest.fixture(scope="module")
def run_id(page):
    """A run over three of the bundled clips, done."""
    started = page.events["start"](KEY, CLIPS, None, "three", "", 3, ["pglh", "pgmf-student"], 0, 0, 0, 0, 0)
    assert started[0] == ""
    page.desk.runner.join(60)
    return started[1].value


def test_a_run_its_results_and_what_is_clicked(page, run_id):
    looked = page.events["look"](KEY, run_id, *VIEW)
    message, status, table = looked[0], looked[1], looked[-2]
    assert message == "" and "3 of 3 items" in status and "done" in status and "given by the author" in status and table.count("<tr data-pick") == 3
    assert "Acc-2" in looked[-5] and 'data-pick="cell:' in looked[-4] and looked[-3].count('data-pick="item:') == 3
    event = SimpleNamespace(value=re.search(r'data-pick="(item:\d+)"', table)[1])
    *_, marks, order, chosen = page.events["pick"](event, KEY, run_id, *VIEW, Marks())
    assert marks.item == chosen[1] and chosen[0] == run_id and order == "largest error"
    message, opened, *values = page.events["open_item"](KEY, chosen)
    assert message == "" and len(values) == study_item.COUNT and "without words" in values[1] and str(page.folder) not in str(values)
    assert values[2].value is not None and "examples" not in str(values[2].value)                # the clip plays, from a copy
    assert "msa-models" in values[len(study_item.OUTPUTS)]
    assert page.events["draw_curve"](KEY, chosen, opened)[1].type == "plotly"
    filtered = page.events["save"](KEY, chosen, "why <b>this</b>", "irony, short, irony", *VIEW, marks)
    assert "why &lt;b&gt;this" in filtered[-1] and filtered[-1].count("study-tag") == 2
    assert page.events["filtered"](KEY, run_id, "pglh", "with a note or tag", "largest error", "", Marks())[-1].count("<tr data-pick") == 1
    tab, video, sound, words, _ = page.events["take"](KEY, chosen)
    assert tab.selected == "clip" and video.endswith(".mp4") and sound is None and words


def test_a_run_of_which_nothing_is_done_offers_nobody_to_look_at(page):
    run_id = page.desk.store.create(owner_of(KEY), read_folder_set("x", EXAMPLES / "sets" / "clips.csv", root=EXAMPLES), Plan(), {}, "waiting")
    looked = page.events["look"](KEY, run_id, *VIEW)
    who = looked[-8]
    assert who.choices == [] and who.value is None and "interrupted" in looked[1]     # the page would refuse a value that is no choice
    page.events["erase"](KEY, run_id)


def test_pictures_have_sentences_and_say_what_they_show(page, run_id):
    looked = page.events["look"](KEY, run_id, *VIEW)
    assert all(re.search(r'alt="[^"]+', image) for image in re.findall("<img[^>]*>", looked[-2])) and "<img" in looked[-2]
    for drawn in looked[-4:-2]:
        assert "<figcaption>" in drawn


def test_files_are_written(page, run_id):
    message, files = page.events["write"](KEY, run_id, "pglh")
    written = [file["path"] for file in files.value]
    assert message == "" and [path.rpartition(".")[2] for path in written] == ["csv", "json", "html"]
    report = open(written[2], encoding="utf-8").read()
    assert report.count("data:image/jpeg;base64,") == 3 and "<script" not in report and str(page.folder) not in report
    assert json.load(open(written[1], encoding="utf-8"))["run"]["answered"] == 3


def test_two_runs_are_compared_and_one_is_deleted(page, run_id):
    other = page.events["start"](KEY, CLIPS, None, "half the words", "", 3, ["pglh"], 0, 0.5, 0, 0, 0)[1].value
    page.desk.runner.join(60)
    assert "50% of the words missing" in page.events["look"](KEY, other, *VIEW)[1]
    message, compared = page.events["compare"](KEY, run_id, other, "pglh")
    assert message == "" and "Of 3 items answered in both runs" in compared and "Moved most" in compared
    assert "did not answer in the other run" in page.events["compare"](KEY, run_id, other, "pgmf-student")[0]
    assert page.events["erase"](KEY, other)[2].value == run_id and len(page.desk.runs(KEY)) == 1


def test_another_visitor_sees_nothing(page, run_id):
    assert page.events["refresh"](OTHER, None)[1].choices == []
    for said in (page.events["look"](OTHER, run_id, *VIEW), page.events["open_item"](OTHER, (run_id, 0, "x")), page.events["write"](OTHER, run_id, "pglh"),
                 page.events["erase"](OTHER, run_id), page.events["save"](OTHER, (run_id, 0, "x"), "mine now", "", *VIEW, Marks())):
        assert "no such run" in said[0]
    assert "key" in page.events["refresh"]("", None)[0]


@pytest.mark.parametrize("name, content, said", [("a.csv", b"file,label\n../../etc/passwd.mp4,1\n", "not inside"), ("a.zip", b"no zip", "no zip"),
                                                 ("a.zip", zipped({"x.mp4": b""}), "no table"), ("a.csv", b"text,label\nwords,99\n", "line 2")])
def test_a_wrong_set_is_one_sentence(page, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = page.events["start"](KEY, CLIPS, str(tmp_path / name), "", "", None, ["pglh"], 0, 0, 0, 0, 0)[0]
    assert said in message and message.count("</p>") == 1 and UNEXPECTED not in message and str(tmp_path) not in message
    assert not list(page.folder.glob("media/*"))                               # nothing half unpacked stays


def test_an_uploaded_set_is_unpacked_analysed_and_gone_when_deleted(page, tmp_path):
    talk = open(write_clip(tmp_path / "talk.mp4", 1.0), "rb").read()
    (tmp_path / "mine.zip").write_bytes(zipped({"labels.csv": "file,text,label\ntalk.mp4,words of mine,1\nbroken.mp4,x,2\n", "talk.mp4": talk, "broken.mp4": b"no video"}))
    run_id = page.events["start"](KEY, CLIPS, str(tmp_path / "mine.zip"), "", "", None, ["pglh"], 0, 0, 0, 0, 0)[1].value
    page.desk.runner.join(60)
    run = page.desk.run(KEY, run_id)
    assert (run.set_name, run.state, run.done, run.failed) == ("mine", "done", 1, 1) and len(list(page.folder.glob("media/*/*"))) == 2
    assert "broken" not in page.events["open_item"](KEY, (run_id, 1, "x"))[0]       # its sentence stands in its heading
    page.events["erase"](KEY, run_id)
    assert not list(page.folder.glob("media/*"))


def test_there_is_an_end_to_what_strangers_may_bring(page, tmp_path, monkeypatch):
    (tmp_path / "mine.zip").write_bytes(zipped({"labels.csv": "file,text,label\ntalk.mp4,words,1\n", "talk.mp4": b"x"}))
    start = lambda upload=None: page.events["start"](KEY, CLIPS, upload, "", "", None, ["pglh"], 0, 0, 0, 0, 0)[0]
    monkeypatch.setattr("msademo.study.desk.QUOTA", {True: 10, False: 10})
    assert "no room for more uploads" in start(str(tmp_path / "mine.zip"))
    monkeypatch.setattr("msademo.study.desk.PUBLIC_ITEMS", 5)
    monkeypatch.setattr(page.desk.store, "kept", False)
    assert "a run may have 5" in start()
    monkeypatch.setattr(page.desk.store, "kept", True)
    monkeypatch.setattr("msademo.study.runner.MOST_WAITING", 0)
    assert "waiting already" in start()


def test_what_the_page_cannot_have_said():
    for said in (None, 7, "", "item:", "item:-1", "item:x", "cell:a", "page:99999999999", "drop:1"):
        with pytest.raises(ValueError):
            picked(Marks(), "largest error", said)
    assert picked(Marks(("0", "+1"), 3), "x", "cell:0:+1")[0] == Marks() and picked(Marks(page=1), "x", "order:y") == (Marks(), "y")


def test_posts_open_with_all_their_panels(post_checkpoints, tmp_path):
    from msademo.post_analyzer import PostAnalyzer
    analyzer = FakeAnalyzer()
    analyzer.posts = PostAnalyzer(post_checkpoints)
    desk = Desk(analyzer, Store(tmp_path))
    run_id = desk.start(KEY, "bundled:Example posts", Plan(masks=1), most=2)
    desk.runner.join(100)
    run = desk.run(KEY, run_id)
    assert run.state == "done" and run.done == 2
    shown = study_view.results(desk, run, None, "all", "largest error", "", Marks())
    assert shown.who == "fusion" and "Macro F1" in shown.metrics and "alone" in shown.scatter
    number = desk.store.rows(run)[0].item.number
    values, opened = study_item.show(desk, run, number, lambda what, share: None)
    panels = values[-len(study_item.POST_PANELS):]
    assert len(values) == study_item.COUNT and "post-path" in panels[0] and panels[3].count("<img") == 4
    assert study_item.curves(desk, run, opened)[2].type == "plotly"


# ---- over HTTP ------------------------------------------------------------------------------------------------------------


def test_nothing_of_the_store_can_be_fetched(page, run_id):
    with serving(page.demo) as url:
        for place in (page.folder / "study.sqlite", page.folder, page.folder / "locks"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{url}gradio_api/file={place}")
            assert caught.value.code in (403, 404)
        client = Client(url, verbose=False)
        assert not [name for name in client.view_api(return_format="dict")["named_endpoints"] if "clip" not in name and "post" not in name]
        client.close()

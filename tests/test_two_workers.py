"""What several processes of the page do at the same time in one folder of runs; a killed one is in test_study_runner.py."""

import threading

import pytest
from tests.test_study_runner import OWNER, SHA, a_set

from msademo.study.desk import settle
from msademo.study.plan import Plan
from msademo.study.store import Store


def test_all_may_start_at_once_in_an_empty_folder(tmp_path):
    """Each store stands for a process: it shares nothing with the others but the file. Many times over, for they must meet at the very start."""
    for number in range(40):
        start_at_once(tmp_path / f"{number}")


def start_at_once(folder):
    ready, failed, made = threading.Barrier(6), [], []

    def work():
        store = Store(folder)
        ready.wait()
        try:
            run_id = store.create(OWNER, a_set(4), Plan(), SHA, "a run")
            for number in range(4):
                store.begin(run_id, number)
                store.finish(run_id, number, {"answers": {}}, None, 0.1, None)
            made.append(run_id)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and len(made) == 6
    assert [run.done for run in Store(folder).runs(OWNER)] == [4] * 6


def test_of_two_uploads_of_one_set_the_first_stays(tmp_path):
    for name, content in (("first", "kept"), ("second", "the same again")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.mp4").write_text(content)
        settle(tmp_path / name, tmp_path / "final")
    assert (tmp_path / "final" / "0.mp4").read_text() == "kept" and not (tmp_path / "first").exists()
    with pytest.raises(OSError):
        settle(tmp_path / "second", tmp_path / "nowhere" / "final")


def test_what_one_deletes_or_cancels_the_others_see(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    run_id = one.create(OWNER, a_set(2), Plan(), SHA, "a run")
    assert [run.id for run in other.runs(OWNER)] == [run_id]
    other.cancel(run_id, OWNER)
    assert not one.still_wanted(run_id)
    other.delete(run_id, OWNER)
    assert one.runs(OWNER) == []

"""A small slice of `python -m benchmarks fuzz`: spoilt files and requests give an answer or one sentence."""

import time

import pytest
from benchmarks import fuzz_payloads
from benchmarks.fuzz_files import READ, REFUSED, Child, Verdict, judge, trouble_with
from benchmarks.mutations import KINDS, Case, case, corpus
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.errors import InputError
from msademo.ui.examples import EXAMPLES
from msademo.ui.page import build_demo

CASES, REQUESTS = 220, 60


@pytest.fixture(scope="module")
def files():
    return corpus()


class ClipsAlone(FakeAnalyzer):
    """Without a model of posts, as the page says then."""

    def post(self, *args, **more):
        raise InputError("Posts need a checkpoint that is not here.")


def told(verdicts: list[Verdict]) -> str:
    return "\n\n".join(f"{v.number} {v.kind} {v.name} {v.what}: {v.told[-1500:]}" for v in verdicts if v.bad)


def test_good_files_are_read(files):
    verdicts = [judge(Case(-1, kind, name, name[name.rindex("."):], data)) for kind, group in files.items() for name, data in group.items()]
    assert {v.kind for v in verdicts} == set(KINDS) and not [v for v in verdicts if v.what != READ], told(verdicts)


def test_spoilt_files_are_read_or_refused_in_one_sentence(files):
    verdicts = [judge(case(11, number, files)) for number in range(CASES)]
    assert not told(verdicts)
    assert {(v.kind, v.what) for v in verdicts} >= {(kind, REFUSED) for kind in KINDS} | {("media", READ), ("picture", READ)}


def test_a_number_is_the_same_file_again(files):
    assert [case(3, number, files).data for number in range(40)] == [case(3, number, files).data for number in range(40)]
    again = corpus()
    assert not [name for kind in files for name in files[kind] if again[kind][name] != files[kind][name]]


@pytest.mark.parametrize("said, wrong", [("Choose another file.", ""), ("a\nb", "no sentence"), ("", "no sentence"), ("x" * 1000, "no sentence"),
                                         ('Traceback (most recent call last): File "a.py"', "traceback")])
def test_what_counts_as_a_sentence(said, wrong):
    assert wrong in trouble_with(said) and bool(wrong) == bool(trouble_with(said))


def test_a_child_that_hangs_or_dies_is_told_as_such(tmp_path, files, monkeypatch):
    programs = {"hang": "import sys; print('ready', flush=True); sys.stdin.readline()\nwhile True: pass", "crash": "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.abort()"}
    for what, program in programs.items():
        child = Child(0, tmp_path, limit_s=0.2)
        monkeypatch.setattr(child, "_command", [child._command[0], "-c", program])
        assert child.judge(case(0, 0, files)).what == what
        child.close()


def test_spoilt_requests_are_answered_or_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MSADEMO_DATA", str(tmp_path / "runs"))
    with serving(build_demo(ClipsAlone())) as url:
        clip = tmp_path / "talk.mp4"
        write_clip(clip, 1.0)
        verdicts = [verdict for verdict, _ in fuzz_payloads.run(url, 0, range(REQUESTS), clip, EXAMPLES / "cat.jpg", time.monotonic() + 600)]
        assert len(verdicts) == REQUESTS and not told(verdicts)

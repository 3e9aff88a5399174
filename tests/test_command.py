"""The clip command: every model in its own line, guidance in all its forms, one sentence for what cannot be used."""

from __future__ import annotations

import json

import pytest
from tests.mediafiles import write_media

from msademo import __main__ as command
from msademo import analyzer as module

PROMPT = "### Visual Cues ###\nA frown.\n### Language Cues ###\nShe complains.\n"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> str:
    return str(write_media(tmp_path_factory.mktemp("media") / "voice.wav"))


@pytest.fixture(autouse=True)
def untrained(checkpoints, monkeypatch):
    monkeypatch.setattr(module.Analyzer.__init__, "__defaults__", (checkpoints,))


def run(capsys, *args) -> tuple[int, str, str]:
    code = command.main(["clip", *map(str, args)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_every_model_has_a_line(capsys, sound):
    code, out, _ = run(capsys, sound, "--transcript", "so it goes", "--missing", "text=0.5")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == ["PGLH", "PGMF student", "PGMF teacher"]
    assert "the teacher was told: offline prompt, written from the complete clip" in out and "of 3 missing" in out


def test_chosen_models_and_guidance_in_json(capsys, sound, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT, encoding="utf-8")
    told = json.loads(run(capsys, sound, "--transcript", "so it goes", "--models", "pgmf-teacher", "--prompt-file", file, "--json")[1])
    assert list(told["predictions"]) == ["pgmf-teacher"] and told["guidance"]["source"] == "typed" and told["guidance"]["visual"] == "A frown."
    assert "maps" not in told["alignments"]["audio"]
    typed = json.loads(run(capsys, sound, "--transcript", "so it goes", "--models", "pgmf-teacher", "--guidance", PROMPT, "--json", "--maps")[1])
    assert typed["guidance"] == told["guidance"] and typed["score"] == told["score"] and len(typed["alignments"]["audio"]["maps"]["teacher"]) == 3
    code, out, _ = run(capsys, sound, "--transcript", "so it goes", "--models", "pglh,pgmf-teacher", "--guidance", "none")
    assert code == 0 and "told: nothing" in out and "student" not in out


@pytest.mark.parametrize("wrong, said", [(["--models", "magic"], "magic"), (["--prompt-file", "/nowhere/prompt.txt"], "prompt file does not exist"), (["--maps"], "--json"),
                                         (["--missing", "text=much"], "text=much")])
def test_what_cannot_be_used_is_one_sentence(capsys, sound, wrong, said):
    code, out, err = run(capsys, sound, "--transcript", "so it goes", *wrong)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1 and err.startswith("error: ")

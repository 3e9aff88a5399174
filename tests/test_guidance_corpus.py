"""The prompts of a corpus: blind to the label, one file that is always the same, and a run that can be killed, fail and go on."""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from msademo.backbones.expression import load_expression
from msademo.errors import InputError
from msademo.features.text import load_text_encoder
from msademo.features.vision import crop_tokens
from msademo.guidance.offline import write_prompt
from msademo.guidance.prompt import Prompt, bounded
from tests.chat_server import GOOD, completion, fault, serving
from train.__main__ import main
from train.compose import Composer
from train.data import training_transcripts
from train.guidance import SHOWN_SIDE, Album, PacedChat, add_arguments, guide
from train.prepare import load_pool
from train.prompts import PromptBook, clip_key, fixed_clip

ROWS = 3                                    # transcripts of a split that a language model is asked about
ASKED = 2 * ROWS + 5 * ROWS                 # two compositions of the training rows, five of the valid ones


@pytest.fixture(scope="module")
def encoder(encoders):
    return load_text_encoder(encoders / "text.safetensors")


@pytest.fixture(autouse=True)
def environment(monkeypatch, encoder):
    monkeypatch.setattr("train.guidance.load_text_encoder", lambda path: encoder)        # the same, read once
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "MSADEMO_OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pool(data, encoders, cache):
    return load_pool(data, "train", encoders / "face.safetensors", cache, say=lambda line: None)


@pytest.fixture(scope="module")
def tokens(data, encoder):
    return [encoder.tokenize(row.words) for row in training_transcripts(data)]


def arguments(data, encoders, cache, folder, source: str, *more: str) -> list[str]:
    return ["--data", str(data), "--source", source, "--out", str(folder / "prompts.jsonl.gz"), "--text", str(encoders / "text.safetensors"),
            "--face", str(encoders / "face.safetensors"), "--cache", str(cache), "--answers", str(folder / "answers"), "--compositions", "2", *more]


def write(given: list[str]) -> tuple[PromptBook, list[str]]:
    parser, said = argparse.ArgumentParser(), []
    add_arguments(parser)
    book = guide(parser.parse_args(given), said.append)
    return book, said


def asking(data, encoders, cache, folder, *more: str) -> list[str]:
    return arguments(data, encoders, cache, folder, "openai", "--limit", str(ROWS), "--rate", "60000", "--workers", "3", "--timeout", "60", *more)


def same(a, b) -> bool:
    return all(np.array_equal(x.values, y.values) for x, y in ((a.audio, b.audio), (a.vision, b.vision)))


def test_fixed_clips_are_fixed_and_differ(pool, tokens, data):
    composer, row = Composer(pool), training_transcripts(data)[0]
    clip = fixed_clip(composer, tokens[0], row.score, 1, 0, 0)
    assert same(clip, fixed_clip(composer, tokens[0], row.score, 1, 0, 0)) and clip_key(clip) == clip_key(fixed_clip(composer, tokens[0], row.score, 1, 0, 0))
    others = [fixed_clip(composer, tokens[0], row.score, *draw) for draw in ((2, 0, 0), (1, 1, 0), (1, 0, 1))] + [fixed_clip(composer, tokens[1], row.score, 1, 0, 0)]
    assert len({clip_key(c) for c in [clip, *others]}) == 5 and re.fullmatch("[0-9a-f]{16}", clip_key(clip))
    variants = {v for k in range(40) for voice in pool.voices for v, values in enumerate(voice)
                if np.array_equal(values, fixed_clip(composer, tokens[0], row.score, 1, k, 0).audio.values)}
    assert variants == set(range(4))        # clean and augmented voices


def test_the_key_sees_words_and_what_the_clip_is_made_of_and_nothing_else(pool, tokens):
    clip = fixed_clip(Composer(pool), tokens[0], 1.0, 1, 0, 0)
    voice, faces = clip.audio.origin, clip.vision.origin
    assert len(voice) == 1 and re.fullmatch(r".+/.+\.\w+#[0-3]", voice[0]) and len(faces) == len(clip.vision.values)
    name, variant = faces[-1].split("#")
    assert np.array_equal(pool.faces[list(pool.face_file).index(name), int(variant)].astype(np.float32), clip.vision.values[-1])
    changed = [replace(clip, tokens=tokens[1]), replace(clip, audio=replace(clip.audio, origin=("another#0",))),
               replace(clip, vision=replace(clip.vision, origin=(*faces[:-1], "another#0")))]
    assert len({clip_key(c) for c in [clip, *changed]}) == 4
    elsewhere = replace(clip, audio=replace(clip.audio, values=clip.audio.values + 1e-6))      # another machine's last digits
    assert clip_key(clip) == clip_key(elsewhere) == clip_key(replace(clip, score=-clip.score)) == clip_key(replace(clip, score=None))
    with pytest.raises(ValueError, match="composed"):
        clip_key(replace(clip, audio=replace(clip.audio, origin=())))


def test_a_prompt_knows_nothing_of_the_score(pool, tokens, data, encoders, cache, tmp_path):
    """The same clip with another score has the very same prompt, and a file written with all scores turned round the other way - but the
    same clips - is the same file."""
    book = write(arguments(data, encoders, cache, tmp_path, "offline"))[0]
    plain = PromptBook("offline", book.about)
    turned = PromptBook("offline", book.about)
    composer = Composer(pool)
    for row, t in zip(training_transcripts(data), tokens):
        clip = fixed_clip(composer, t, row.score, 1111, 0, 0)
        for score in (row.score, -row.score, None):
            assert book.get(replace(clip, score=score), row.words) == write_prompt(row.words, clip.audio, clip.vision)
        plain.add(clip_key(clip), write_prompt(row.words, clip.audio, clip.vision))
        other = replace(clip, score=-row.score)
        turned.add(clip_key(other), write_prompt(row.words, other.audio, other.vision))
    plain.write(tmp_path / "a.gz"), turned.write(tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_the_file_holds_sentences_and_their_numbers_only(data, encoders, cache, tmp_path):
    book = write(arguments(data, encoders, cache, tmp_path, "offline"))[0]
    header, *lines = [json.loads(line) for line in gzip.decompress((tmp_path / "prompts.jsonl.gz").read_bytes()).decode().splitlines()]
    assert set(header) == {"format", "source", "about", "clips", "sentences"} and header["clips"] == len(book) == len(lines) - header["sentences"]
    sentences, clips = lines[:header["sentences"]], lines[header["sentences"]:]
    assert all(isinstance(s, str) for s in sentences) and len(set(sentences)) == len(sentences)
    for key, *sections in clips:
        assert re.fullmatch("[0-9a-f]{16}", key) and len(sections) == 3
        assert all(isinstance(i, int) and 0 <= i < len(sentences) for section in sections for i in section)
    scores = {f"{abs(row.score):g}" for row in training_transcripts(data)}
    assert not any(score in sentence for score in scores if "." in score for sentence in sentences)


def test_offline_prompts_of_all_clips_in_a_file_that_is_always_the_same(data, encoders, cache, tmp_path):
    book, said = write(arguments(data, encoders, cache, tmp_path, "offline"))
    assert len(book) == 2 * 24 + 5 * 12 and f"{len(book)}/{len(book)} clips, 0 failed, ETA 0.0 min" in said[-2]
    first = (tmp_path / "prompts.jsonl.gz").read_bytes()
    again = PromptBook.read(tmp_path / "prompts.jsonl.gz")
    again.write(tmp_path / "again.gz")
    write(arguments(data, encoders, cache, tmp_path, "offline", "--split", "valid", "train"))       # in another order
    second = gzip.decompress((tmp_path / "prompts.jsonl.gz").read_bytes()).splitlines()
    assert (tmp_path / "again.gz").read_bytes() == first and second[1:] == gzip.decompress(first).splitlines()[1:]


def test_a_book_gives_back_what_it_was_given(tmp_path, pool, tokens):
    rng = np.random.default_rng(0)
    given = {}
    for i in range(50):
        sections = ["".join(rng.choice(["Fine. ", "她笑。", "- a line\n", "No end", "! ", "\n\n", '"Why?" '], size=rng.integers(0, 7))) for _ in range(3)]
        given[f"{i:016x}"] = bounded(*sections, "openai", "cut" if i % 7 == 0 else "")
    first, second = PromptBook("openai", "x"), PromptBook("openai", "x")
    for key, prompt in given.items():
        first.add(key, prompt)
    for key, prompt in reversed(given.items()):
        second.add(key, prompt)
    first.write(tmp_path / "a.gz"), second.write(tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    book = PromptBook.read(tmp_path / "a.gz")
    assert {key: book.lookup(key) for key in given} == given and len(book) == 50 and book.lookup("f" * 16) is None
    book.add("0" * 15 + "1", given[f"{2:016x}"])        # a book that was read can be added to, and an entry replaced
    assert book.lookup("0" * 15 + "1") == given[f"{2:016x}"] and len(book) == 50
    clip = fixed_clip(Composer(pool), tokens[0], 1.0, 1, 0, 0)
    with pytest.raises(InputError, match="hold none for this clip"):
        book.get(clip, ("a",))
    assert PromptBook("offline").get(clip, ("a",)) == write_prompt(("a",), clip.audio, clip.vision)
    with pytest.raises(InputError, match="source typed"):
        book.add("0" * 16, Prompt("a", "b", "c", "typed"))
    with pytest.raises(InputError, match="no guidance called"):
        PromptBook("magic")


def test_a_file_that_is_no_book_is_refused(tmp_path):
    book = PromptBook("offline")
    book.add("0" * 16, Prompt("a. b.", "c", "", "offline"))
    book.write(tmp_path / "good.gz")
    good = (tmp_path / "good.gz").read_bytes()
    lines = gzip.decompress(good).splitlines()
    pack = lambda lines: gzip.compress(b"\n".join(lines))
    for bad in (good[:-9], good[:20], b"", b"hello", gzip.compress(b"hello"), gzip.compress(b""), pack(lines[:-1]), pack([b"[]", *lines[1:]]), pack(lines[:2] + lines[3:])):
        (tmp_path / "bad.gz").write_bytes(bad)
        with pytest.raises(InputError, match="bad.gz cannot be read as prompts"):
            PromptBook.read(tmp_path / "bad.gz")
    (tmp_path / "bad.gz").write_bytes(pack([lines[0].replace(b'"format":1', b'"format":9'), *lines[1:]]))
    with pytest.raises(InputError, match="format 9"):
        PromptBook.read(tmp_path / "bad.gz")
    with pytest.raises(InputError, match="no prompts at"):
        PromptBook.read(tmp_path / "absent.gz")


def test_a_composed_clips_faces_are_found_again(data, encoders, pool, tokens):
    album, network = Album(data / "faces" / "fer2013.zip"), load_expression(encoders / "face.safetensors")
    clip = fixed_clip(Composer(pool), tokens[0], 1.0, 1, 0, 0)
    crops = np.stack([album.crop(face) for face in clip.vision.origin])
    np.testing.assert_allclose(crop_tokens(crops, network), clip.vision.values, atol=2e-3, rtol=2e-3)      # tokens are kept in half precision
    pictures = album.frames(clip)
    assert [p.shape for p in pictures] == [(SHOWN_SIDE, SHOWN_SIDE, 3)] * 3


def test_a_model_is_asked_about_every_clip_and_the_cost_is_shown(data, encoders, cache, tmp_path, monkeypatch):
    with serving(completion(GOOD), delay=0.05) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        book, said = write(asking(data, encoders, cache, tmp_path, "--price", "1", "2", "--model", "m"))
        assert len(server.requests) == ASKED == len(book) and server.most_open > 1
        assert f"{ASKED} answers with {100 * ASKED} tokens read and {20 * ASKED} written, costing {ASKED * 140 / 1e6:.4f}" in said[-2]
        first = (tmp_path / "prompts.jsonl.gz").read_bytes()
        write(asking(data, encoders, cache, tmp_path, "--model", "m"))
        assert len(server.requests) == ASKED and (tmp_path / "prompts.jsonl.gz").read_bytes() == first
    text, *pictures = server.requests[0]["messages"][1]["content"]
    seen = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]["image_url"]["url"].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert len(pictures) == 3 and seen.shape == (SHOWN_SIDE, SHOWN_SIDE, 3) and "this film was" in text["text"]
    everything = json.dumps(server.requests)
    assert not any(f"{abs(row.score):.2f}" in everything for row in training_transcripts(data)[:ROWS])


def test_one_failure_never_stops_it_and_is_asked_for_again(data, encoders, cache, tmp_path, monkeypatch):
    with serving(completion(GOOD), completion(GOOD), fault(400), completion("no headings"), completion(GOOD, "length"), completion(GOOD)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        book, said = write(asking(data, encoders, cache, tmp_path))
        assert len(book) == ASKED - 3 and "3 failed" in said[-5]
        assert sorted(line for line in said if "without a prompt" in line)[0].startswith("guidance: 1 without a prompt - The language model") and "3 clips have none" in said[-1]
        book, said = write(asking(data, encoders, cache, tmp_path))
        assert len(book) == ASKED and len(server.requests) == ASKED + 3 and "0 failed" in said[-2]


def test_it_stops_asking_when_nothing_works(data, encoders, cache, tmp_path, monkeypatch, capsys):
    with serving(fault(401)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert main(["guidance", *arguments(data, encoders, cache, tmp_path, "openai", "--rate", "60000", "--workers", "3")]) == 2
        assert 25 <= len(server.requests) < 60
    assert "does not accept the key" in capsys.readouterr().err and not (tmp_path / "prompts.jsonl.gz").exists()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["guidance", *arguments(data, encoders, cache, tmp_path, "openai")]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_killed_and_started_again_nothing_answered_is_asked_twice(data, encoders, cache, tmp_path, monkeypatch):
    root = Path(__file__).resolve().parent.parent
    with serving(completion(GOOD), delay=0.2) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        given = asking(data, encoders, cache, tmp_path)
        process = subprocess.Popen([sys.executable, "-m", "train", "guidance", *given], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + 120
        while len(list((tmp_path / "answers").rglob("[0-9a-f]*.json"))) < 4 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered, asked = len(list((tmp_path / "answers").rglob("[0-9a-f]*.json"))), len(server.requests)
        assert 4 <= answered < ASKED and not (tmp_path / "prompts.jsonl.gz").exists()
        server.delay = 0.0
        book, _ = write(given)
        assert len(book) == ASKED and len(server.requests) - asked == ASKED - answered
        write([*given, "--answers", str(tmp_path / "fresh"), "--out", str(tmp_path / "whole.gz")])        # never killed
    assert (tmp_path / "whole.gz").read_bytes() == (tmp_path / "prompts.jsonl.gz").read_bytes()


def test_questions_keep_to_the_rate(monkeypatch):
    from msademo.guidance.chat import ChatSettings
    with serving(completion("fine")) as server:
        chat = PacedChat(ChatSettings(base_url=server.url), rate=240)
        for _ in range(4):
            chat.ask("i", "t")
    assert server.times[-1] - server.times[0] > 0.5         # three gaps of 0.25 s; the first may have arrived late


@pytest.mark.parametrize("wrong", [("--compositions", "0"), ("--workers", "0"), ("--rate", "0"), ("--limit", "0")])
def test_wrong_numbers_are_one_sentence(wrong, data, encoders, cache, tmp_path, capsys):
    assert main(["guidance", *arguments(data, encoders, cache, tmp_path, "offline", *wrong)]) == 2
    assert "must be at least 1" in capsys.readouterr().err

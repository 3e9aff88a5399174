"""Extraction and guidance on a Ray cluster give the very files that this machine alone gives."""

from __future__ import annotations

import sys

import pytest

from tests.test_killed import contents
from train.__main__ import main


def prepared(data, encoders, cache, *more):
    assert main(["prepare", "--data", str(data), "--face", str(encoders / "face.safetensors"), "--cache", str(cache), *more]) == 0
    return contents(cache)


def test_without_ray_it_is_one_sentence(data, encoders, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["prepare", "--data", str(data), "--face", str(encoders / "face.safetensors"), "--cache", str(tmp_path), "--ray"]) == 2
    message = capsys.readouterr().err
    assert "pip install -r requirements-ray.txt" in message and message.count("\n") == 1
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert main(["guidance", "--data", str(data), "--source", "openai", "--ray"]) == 2 and "--source offline" in capsys.readouterr().err


@pytest.fixture
def ray():
    module = pytest.importorskip("ray", reason="Ray is an optional extra (requirements-ray.txt)")
    yield module
    module.shutdown()


def test_a_local_cluster_makes_the_same(data, encoders, tmp_path, ray):
    broken = data / "voices" / "set" / "train-happy-0.wav"
    good = broken.read_bytes()
    try:
        broken.write_bytes(b"no sound at all")
        there = prepared(data, encoders, tmp_path / "here", "--workers", "1")
        assert len(there) == 35 + 3 and prepared(data, encoders, tmp_path / "cluster", "--ray") == there
    finally:
        broken.write_bytes(good)
    for name, more in (("one", []), ("two", ["--ray"])):
        assert main(["guidance", "--data", str(data), "--source", "offline", "--text", str(encoders / "text.safetensors"), "--face", str(encoders / "face.safetensors"),
                     "--cache", str(tmp_path / "here"), "--out", str(tmp_path / f"{name}.gz"), "--compositions", "2", *more]) == 0
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()

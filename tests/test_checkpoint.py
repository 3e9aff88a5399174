"""Checkpoints: the round trip, and one sentence for every file that is not what it should be."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from msademo import checkpoint as module
from msademo.backbones.expression import load_expression
from msademo.checkpoint import FORMAT_VERSION, KEY, STEP, file_hash, in_eight_bits, load_weights, read_checkpoint, save_checkpoint, write_atomically
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.features.bundle import Statistics
from msademo.features.text import load_text_encoder
from msademo.models.pglh import PGLH, PGLHConfig
from msademo.registry import load_fusion

CONFIG = {"width": 3}
DIMS = {"text": 4, "audio": 3, "vision": 2}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(3, 2), "bias": torch.randn(3).half(), "count": torch.tensor(7), "flat": torch.randn(4, 3).T}


def refused(action, *words: str) -> str:
    """The one sentence of the InputError that `action` raises; it must hold all `words`."""
    with pytest.raises(InputError) as refusal:
        action()
    sentence = str(refusal.value)
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(tmp_path / "one.safetensors", "pglh", CONFIG, tensors(), scale=[-3, 3], note="größer ✓", metrics={"mae": 0.5})
    return tmp_path / "one.safetensors"


def test_round_trip(saved):
    read = read_checkpoint(saved, "pglh")
    assert read.method == "pglh" and read.config == CONFIG and read.path == saved
    assert read.meta["scale"] == [-3, 3] and read.meta["note"] == "größer ✓" and read.meta["metrics"] == {"mae": 0.5}
    assert read.meta["format"] == FORMAT_VERSION and read.meta["packages"]["torch"]
    assert read.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read.tensors[name].dtype == tensor.dtype and torch.equal(read.tensors[name], tensor)
    assert read_checkpoint(str(saved)).method == "pglh"


def test_matrices_in_eight_bits_come_back_within_half_a_step(tmp_path):
    torch.manual_seed(0)
    whole = {"wide": torch.randn(5, 7) * torch.tensor([1e-6, 0.1, 1, 30, 0])[:, None], "conv": torch.randn(4, 3, 2, 2), "bias": torch.randn(6)}
    save_checkpoint(tmp_path / "bytes.safetensors", "pglh", CONFIG, in_eight_bits(whole))
    save_checkpoint(tmp_path / "halves.safetensors", "pglh", CONFIG, {"wide": torch.zeros(200, 100).half()})
    save_checkpoint(tmp_path / "small.safetensors", "pglh", CONFIG, in_eight_bits({"wide": torch.zeros(200, 100)}))
    read = read_checkpoint(tmp_path / "bytes.safetensors").tensors
    assert read.keys() == whole.keys()
    for name in ("wide", "conv"):
        rows = whole[name].flatten(1)
        bound = rows.abs().amax(1, keepdim=True) / 254
        assert read[name].shape == whole[name].shape and ((read[name].flatten(1) - rows).abs() <= bound * 1.001 + 1e-30).all()
        assert (read[name].flatten(1) - rows).abs().max() > 0
    assert torch.equal(read["bias"], whole["bias"].half())
    again = read_checkpoint(tmp_path / "bytes.safetensors").tensors
    assert all(torch.equal(again[name], read[name]) for name in read)
    assert (tmp_path / "small.safetensors").stat().st_size < 0.6 * (tmp_path / "halves.safetensors").stat().st_size


@pytest.mark.parametrize("damaged", [
    {"a" + STEP: torch.ones(3)}, {"a": torch.ones(3, 2), "a" + STEP: torch.ones(3)}, {"a": torch.ones(3, 2).to(torch.int8), "a" + STEP: torch.ones(2)},
    {"a": torch.ones(3).to(torch.int8), "a" + STEP: torch.ones(3)}, {"a": torch.ones(3, 2).to(torch.int8), "a" + STEP: torch.ones(3).to(torch.int8)}])
def test_steps_that_belong_to_no_matrix_are_refused(tmp_path, damaged):
    save_checkpoint(tmp_path / "odd.safetensors", "pglh", CONFIG, damaged)
    refused(lambda: read_checkpoint(tmp_path / "odd.safetensors"), "odd.safetensors", "damaged")


def test_the_same_contents_make_the_same_file(saved, tmp_path):
    save_checkpoint(tmp_path / "two.safetensors", "pglh", CONFIG, tensors(), scale=[-3, 3], note="größer ✓", metrics={"mae": 0.5})
    assert file_hash(saved) == file_hash(tmp_path / "two.safetensors")
    save_checkpoint(tmp_path / "two.safetensors", "pglh", CONFIG, tensors(), scale=[-1, 1])
    assert file_hash(saved) != file_hash(tmp_path / "two.safetensors")


def test_absent(tmp_path):
    refused(lambda: read_checkpoint(tmp_path / "none.safetensors"), "no checkpoint", "none.safetensors")
    refused(lambda: read_checkpoint(tmp_path), "no checkpoint")             # a folder is none either


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_cut_off(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[:int(len(data) * share)])
    refused(lambda: read_checkpoint(saved), "one.safetensors", "cut off")


def test_noise(tmp_path):
    path = tmp_path / "noise.safetensors"
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(300))
        refused(lambda: read_checkpoint(path), "noise.safetensors")


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_renamed_pickle_is_refused_and_never_executed(tmp_path, protocol):
    path, mark = tmp_path / "evil.safetensors", tmp_path / "mark"
    if protocol == "torch":
        torch.save({"weight": torch.ones(3), "bomb": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    for load in (read_checkpoint, load_expression, load_text_encoder, lambda p: load_fusion(p, p, p)):
        refused(lambda: load(path), "evil.safetensors")
    assert not mark.exists()
    if protocol == "pickle":                                                # the bomb is a real one
        pickle.loads(path.read_bytes())
        assert mark.exists()


def test_a_foreign_safetensors(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign.safetensors")
    refused(lambda: read_checkpoint(tmp_path / "foreign.safetensors"), "not a checkpoint of msademo")
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    refused(lambda: read_checkpoint(tmp_path / "foreign.safetensors"), "not a checkpoint of msademo")


@pytest.mark.parametrize("header", ["{", "", "[]", "null", "3", '{"method": "pglh"}', '{"format": 1, "config": {}}',
                                    '{"format": 1, "method": "pglh", "config": 3}', '{"format": 1, "method": "pglh", "config": null}', "[" * 100_000,
                                    '{"format": 1, "method": ["pglh"], "config": {}}', '{"format": 1, "method": "a\\nb", "config": {}}', '{"format": "1", "method": "pglh", "config": {}}'],
                         ids=range(13))
def test_damaged_metadata(tmp_path, header):
    save_file({"weight": torch.ones(3)}, tmp_path / "odd.safetensors", metadata={KEY: header})
    for load in (read_checkpoint, lambda p: load_fusion(p, p, p)):
        refused(lambda: load(tmp_path / "odd.safetensors"), "odd.safetensors", "damaged metadata")


def test_another_format_version(tmp_path):
    document = {"format": FORMAT_VERSION + 1, "method": "pglh", "config": {}}
    save_file({"weight": torch.ones(3)}, tmp_path / "later.safetensors", metadata={KEY: json.dumps(document)})
    refused(lambda: read_checkpoint(tmp_path / "later.safetensors"), "later.safetensors", f"format {FORMAT_VERSION + 1}", f"format {FORMAT_VERSION};")


def test_another_method(saved):
    refused(lambda: read_checkpoint(saved, "text"), "holds a pglh model", "text")


def filled(shape=(3, 2), **other) -> dict[str, torch.Tensor]:
    return {"weight": torch.ones(shape), "bias": torch.ones(3), **other}


def test_weights_must_fit(tmp_path):
    model, path = torch.nn.Linear(2, 3), tmp_path / "w.safetensors"

    def load(contents):
        save_checkpoint(path, "pglh", CONFIG, contents)
        load_weights(model, read_checkpoint(path))

    load(filled())
    assert model.weight.eq(1).all()
    before = model.weight.clone()
    refused(lambda: load({"weight": torch.zeros(3, 2)}), "w.safetensors", "bias is missing", "1 missing, 0 unknown")
    refused(lambda: load(filled(extra=torch.ones(1))), "extra is not part", "0 missing, 1 unknown")
    refused(lambda: load(filled((2, 3))), "weight", "(2, 3)", "(3, 2)")
    assert torch.equal(model.weight, before)                                # a refused file changes nothing
    load({name: tensor.half() for name, tensor in filled().items()})
    assert model.weight.dtype == torch.float32


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before, folder = saved.read_bytes(), sorted(os.listdir(saved.parent))

    def full(*args):
        raise OSError("no space left")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, name, full)
            with pytest.raises(OSError, match="no space"):
                save_checkpoint(saved, "pglh", {"width": 4}, tensors())
        assert saved.read_bytes() == before and sorted(os.listdir(saved.parent)) == folder
    with pytest.raises(TypeError):                                          # what is no JSON is found before anything is written
        save_checkpoint(saved, "pglh", {"width": object()}, tensors())
    assert saved.read_bytes() == before and sorted(os.listdir(saved.parent)) == folder


def test_writing_makes_the_folder_and_a_readable_file(tmp_path):
    write_atomically(tmp_path / "new" / "folder" / "file", b"abc")
    assert (tmp_path / "new/folder/file").read_bytes() == b"abc"
    assert os.stat(tmp_path / "new/folder/file").st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path / "new" / "folder") == ["file"]


@pytest.fixture
def trio(tmp_path):
    """A fusion checkpoint beside the three it was trained with, and a way to write it differently."""
    for name in ("text", "face", "voice"):
        save_checkpoint(tmp_path / f"{name}.safetensors", name, {}, {"weight": torch.ones(2)})
    config = PGLHConfig(dims=DIMS, width=8, heads=2)
    statistics = Statistics.of({m: np.random.default_rng(0).normal(size=(20, d)) for m, d in DIMS.items()}).to_dict()
    extractor = {f"{name}_sha256": file_hash(tmp_path / f"{name}.safetensors") for name in ("text", "face", "voice")}
    torch.manual_seed(0)
    state = PGLH(config).state_dict()

    def write(method: str = "pglh", settings=vars(config), **other):
        save_checkpoint(tmp_path / "pglh.safetensors", method, dict(settings), state,
                        **{"statistics": statistics, "extractor": extractor, "scale": [-3, 3], "median": 0.2, "data": "none", **other})
        return load_fusion(tmp_path / "pglh.safetensors", tmp_path / "text.safetensors", tmp_path / "face.safetensors", "pglh")

    write.folder, write.statistics, write.config = tmp_path, statistics, vars(config)
    return write


def test_fusion_round_trip(trio):
    loaded = trio()
    assert loaded.model.config == PGLHConfig(dims=DIMS, width=8, heads=2) and loaded.meta["scale"] == [-3, 3]
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    for m in MODALITIES:
        assert loaded.statistics.mean[m].tolist() == trio.statistics[m]["mean"]
        assert loaded.statistics.deviation[m].tolist() == trio.statistics[m]["deviation"]


@pytest.mark.parametrize("part", ["text", "face", "voice"])
def test_fusion_wants_the_very_encoders_it_was_trained_with(trio, part):
    trio()
    save_checkpoint(trio.folder / f"{part}.safetensors", part, {}, {"weight": torch.zeros(2)})
    load = lambda: load_fusion(trio.folder / "pglh.safetensors", trio.folder / "text.safetensors", trio.folder / "face.safetensors")
    refused(load, "pglh.safetensors", f"another {part}.safetensors")
    (trio.folder / f"{part}.safetensors").unlink()
    refused(load, "pglh.safetensors", f"{part}.safetensors", "not there")


def test_fusion_statistics_of_other_width(trio):
    stored = trio.statistics
    narrow = {**stored, "audio": {"mean": [0.0, 0.0], "deviation": [1.0, 1.0]}}
    refused(lambda: trio(statistics=narrow), "3 audio features", "statistics of 2")
    refused(lambda: trio(statistics={m: stored[m] for m in ("text", "audio")}), "vision")
    crooked = {**stored, "audio": {"mean": stored["audio"]["mean"], "deviation": [1.0, 1.0]}}
    refused(lambda: trio(statistics=crooked), "pglh.safetensors", "audio")
    for broken in ({}, [], None, 3, {m: 3 for m in MODALITIES}, {m: {"mean": ["a"], "deviation": ["b"]} for m in MODALITIES}):
        refused(lambda: trio(statistics=broken), "pglh.safetensors")


def test_fusion_without_its_extractor(trio):
    for broken in ({}, None, [], {"text_sha256": "0"}, {"text_sha256": "0", "face_sha256": "0"}):
        refused(lambda: trio(extractor=broken), "pglh.safetensors", "train it again")


@pytest.mark.parametrize("key", ["statistics", "extractor", "scale", "median", "data"])
def test_fusion_without_what_an_analysis_needs(trio, key):
    trio()
    stored = read_checkpoint(trio.folder / "pglh.safetensors")
    meta = {name: value for name, value in stored.meta.items() if name not in (key, "format", "method", "config", "packages")}
    save_checkpoint(stored.path, "pglh", stored.config, stored.tensors, **meta)
    refused(lambda: load_fusion(stored.path, trio.folder / "text.safetensors", trio.folder / "face.safetensors"), "pglh.safetensors", key)


def test_fusion_of_other_sizes_or_config(trio):
    config = trio.config
    refused(lambda: trio(settings={**config, "dims": {**DIMS, "audio": 5}}), "pglh.safetensors", "audio")
    refused(lambda: trio(settings={**config, "width": 16}), "pglh.safetensors", "shape")
    refused(lambda: trio(settings={**config, "encoder_layers": 2}), "missing")
    refused(lambda: trio(settings={**config, "depth": 3}), "pglh.safetensors", "config")
    refused(lambda: trio(settings={**config, "width": "8"}), "pglh.safetensors", "config")
    refused(lambda: trio(settings={**config, "dims": list(DIMS)}), "config")
    refused(lambda: trio(settings={**config, "heads": 3}), "heads")


@pytest.mark.parametrize("name, value", [("width", 2**31), ("width", 8.0), ("encoder_layers", 10**12), ("decoder_layers", 2.0), ("dims", {**DIMS, "text": 2**40}), ("heads", [4])])
def test_a_config_of_what_no_model_is_takes_neither_time_nor_memory(trio, name, value):
    refused(lambda: trio(settings={**trio.config, name: value}), "pglh.safetensors", "config")


@pytest.mark.parametrize("other", [{"median": float("nan")}, {"scale": [-3, None]}, {"scale": [-3, 10**400]}, {"scale": 3}, {"data": 3}])
def test_numbers_of_a_checkpoint_are_numbers(trio, other):
    refused(lambda: trio(**other), "pglh.safetensors", "train it again")


@pytest.mark.parametrize("emotions", [-1, 4, "many", None])
def test_emotions_are_some_of_the_voices_numbers(trio, emotions):
    refused(lambda: trio(statistics={**trio.statistics, "emotions": emotions}), "pglh.safetensors", "train it again")


def test_statistics_are_finite(trio):
    for bad in (float("nan"), 1e300, None):
        refused(lambda: trio(statistics={**trio.statistics, "audio": {"mean": [bad, 0.0, 0.0], "deviation": [1.0, 1.0, 1.0]}}), "audio statistics")


def test_fusion_of_another_method(trio):
    refused(lambda: trio("baseline"), "holds a baseline model")
    path = trio.folder / "text.safetensors"
    refused(lambda: load_fusion(path, path, path), "text.safetensors", "holds a text model", "pglh")

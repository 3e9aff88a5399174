"""Pickles read without running them, and the quirks of MMSA's files; what is wrong is said by key and shape."""

from __future__ import annotations

import collections
import io
import os
import pickle
import re

import numpy as np
import pytest

from msademo.errors import InputError
from tests.pickle_support import SHAPES, write_mmsa
from train.pickles import read_mmsa
from train.unpickle import read_pickle

PLAIN = {"text": "grün", 1: [1.5, None, True, 10**30], "b": b"\x00\xff", "t": (1, (2,)), "set": {1, 2}, "frozen": frozenset({3}), "c": bytearray(b"ab"),
         "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, x=[1])}
ARRAYS = {"f": np.arange(6, dtype=np.float32).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "i": np.arange(3), "bool": np.array([True, False]),
          "big": np.arange(3, dtype=">i4"), "unicode": np.array(["a", "grün"]), "bytes": np.array([b"ab", b"c"]), "object": np.array(["x", None, 3], dtype=object),
          "empty": np.zeros((0, 4)), "scalar": np.float64(2.5), "zero": np.array(7)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_python_read_as_pickle_reads_them(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"plain": PLAIN, "arrays": ARRAYS, "list": [ARRAYS["f"], ARRAYS["f"]]}, protocol))
    found = read_pickle(path)
    assert found["plain"] == PLAIN
    for name, array in ARRAYS.items():
        assert found["arrays"][name].dtype == array.dtype and found["arrays"][name].shape == array.shape, name
        assert np.array_equal(found["arrays"][name], array), name
    assert np.array_equal(found["list"][1], ARRAYS["f"])


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Own:
    pass


@pytest.mark.parametrize("evil", [Calls(os.system, "touch {0}"), Calls(eval, "open('{0}', 'w')"), Calls(open, "{0}", "w"), Calls(np.fromfile, "{0}"), Calls(getattr, 1, "real"),
                                  Own(), np.random.default_rng(0), re.compile("a"), np.dtype("f4"), np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")]),
                                  np.array(["2020-01-01"], dtype="M8[D]"), [np.array([Own()], dtype=object)]], ids=str)
def test_nothing_is_run_and_nothing_else_admitted(tmp_path, evil):
    target, path = tmp_path / "touched", tmp_path / "evil.pkl"
    if isinstance(evil, Calls):
        evil.arguments = tuple(a.format(target) if isinstance(a, str) else a for a in evil.arguments)
    path.write_bytes(pickle.dumps({"train": evil}))
    with pytest.raises(InputError, match="evil.pkl holds .*only numpy arrays and plain Python") as refused:
        read_pickle(path)
    assert not target.exists() and str(refused.value).count("\n") == 0


def test_arrays_that_claim_more_than_they_have_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    good = pickle.dumps(np.arange(4, dtype=np.int64), 4)
    path.write_bytes(good.replace(b"K\x04\x85", b"K\x40\x85"))          # a shape of 64 over the bytes of 4
    with pytest.raises(InputError, match="do not fit its shape"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(PLAIN)[:40], b"\x80\x04]\x94h\x00a."[:4], b"PK\x03\x04zip"])
def test_damaged_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.pkl cannot be read as a pickle"):
        read_pickle(path)
    with pytest.raises(InputError, match="no file"):
        read_pickle(tmp_path / "none.pkl")


def test_what_is_named_often_is_built_once(tmp_path):
    """2 ** 60 lists in a few hundred bytes, and a list that holds itself."""
    nested, path = [np.arange(3)], tmp_path / "a.pkl"
    for _ in range(60):
        nested = [nested, nested]
    path.write_bytes(pickle.dumps(nested))
    found = read_pickle(path)
    for _ in range(60):
        assert found[0] is found[1]
        found = found[0]
    assert np.array_equal(found[0], np.arange(3))
    nested.append(nested)
    path.write_bytes(pickle.dumps(nested))
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(path)


def test_attributes_set_by_a_pickle_do_not_outlive_it(tmp_path):
    """BUILD on a name may set attributes; the names of the next file are new ones."""
    out = io.BytesIO()
    out.write(b"\x80\x02c_codecs\nencode\n(NS'make'\nNstb.")
    path = tmp_path / "a.pkl"
    path.write_bytes(out.getvalue())
    with pytest.raises(InputError):
        read_pickle(path)
    path.write_bytes(pickle.dumps(b"abc", 2))
    assert read_pickle(path) == b"abc"


@pytest.mark.parametrize("dataset", ["mosi", "mosei", "sims"])
@pytest.mark.parametrize("aligned", [False, True])
def test_shapes_and_quirks_of_the_published_files(tmp_path, dataset, aligned):
    said = []
    splits = read_mmsa(write_mmsa(tmp_path / "a.pkl", dataset, dataset, (4, 3, 2), aligned), 1.0 if dataset == "sims" else 3.0, say=said.append)
    steps = lambda m: SHAPES[dataset][("text", "audio", "vision").index(m)]
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [4, 3, 2]
    for part in splits.values():
        assert part.text.shape[1:] == steps("text") and part.bert.dtype == np.int64 and part.raw[0].startswith("this film")
        for m in ("audio", "vision"):
            values = getattr(part, m)
            assert values.shape[1:] == ((steps("text")[0] if aligned else steps(m)[0]), steps(m)[1]) and values.dtype == np.float32 and np.isfinite(values).all()
            assert (part.lengths[m] <= values.shape[1]).all()
            if aligned:
                assert np.array_equal(part.lengths[m], part.lengths["text"])
        assert part.audio[0, 0, 0] == 0 and part.ids[1] == "v1$_$0001"
    assert any("infinite" in line and "audio" in line and "train" in line for line in said)
    assert any("were cut to the" in line for line in said) is not aligned
    if not aligned:
        assert splits["train"].lengths["vision"][1] == steps("vision")[0]


def test_keys_that_may_be_missing_or_otherwise(tmp_path):
    def change(content):
        for part in content.values():
            for key in ("text_bert", "id", "annotations", "classification_labels", "audio_lengths"):
                del part[key]
            part["audio"][:, 3:] = 0
            part["vision"] = [part["vision"][i][:3 + i % 2] for i in range(len(part["vision"]))]      # rows of their own length
            del part["vision_lengths"]
            part["regression_labels"] = np.array(part["regression_labels"])[:, None]
            part["prompt"] = ["It is fine."] * len(part["audio"])
            part["extra"] = {"x": 1}
    said = []
    told = read_mmsa(write_mmsa(tmp_path / "told.pkl"), 3.0)["train"].lengths["text"]
    part = read_mmsa(write_mmsa(tmp_path / "a.pkl", change=change), 3.0, say=said.append)["train"]
    assert part.bert is None and part.ids[0] == "train-0" and part.prompts[0] == "It is fine." and part.scores.shape == (16,)
    assert (part.lengths["audio"] <= 3).all() and part.lengths["audio"].max() == 3 and list(part.lengths["vision"][:2]) == [3, 4]
    assert np.array_equal(part.lengths["text"], told) and len(set(told)) > 1, "zeros at the end are padding where nothing else tells"
    assert any("lengths of audio are not given" in line for line in said)


def spoil(key, value, split="valid"):
    def change(content):
        if value is None:
            del content[split][key]
        else:
            content[split][key] = value(content[split][key]) if callable(value) else value
    return change


@pytest.mark.parametrize("change, words", [
    (spoil("audio", None), ("'valid'", "no key 'audio'", "N x length x width")),
    (spoil("audio", lambda v: v[:, :, 0]), ("valid/audio", "(8, 11)", "N x length x width")),
    (spoil("audio", lambda v: v[:-1]), ("valid/audio", "(7, 11, 4)", "N = 8")),
    (spoil("audio", lambda v: v[:, :, :3]), ("valid/audio has width 3", "train/audio 4")),
    (spoil("vision", "text"), ("valid/vision", "str", "N x length x width")),
    (spoil("vision", lambda v: [v[0], v[1][:, :2]] * 4), ("valid/vision", "list of shapes", "(7, 2)")),
    (spoil("vision_lengths", [1, 2]), ("valid/vision_lengths", "(2,)", "N = 8")),
    (spoil("vision_lengths", [-1.0] * 8), ("valid/vision_lengths", "no lengths")),
    (spoil("text_bert", lambda v: v[:, :2]), ("valid/text_bert", "(8, 2, 9)", "N x 3 x length")),
    (spoil("text_bert", lambda v: v + 0.5), ("valid/text_bert", "no ids")),
    (spoil("text_bert", lambda v: v[:, :, ::-1]), ("valid/text_bert", "padding at the end")),
    (spoil("regression_labels", lambda v: np.asarray(v) * 2), ("valid/regression_labels reaches", "[-3, 3]", "--config")),
    (spoil("regression_labels", ["a"] * 8), ("valid/regression_labels", "no numbers")),
    (spoil("raw_text", ["one"]), ("valid/raw_text has 1 entries", "8 texts")),
    (lambda content: content.pop("valid"), ("no split 'valid'", "train, test")),
    (lambda content: content.update(valid=[1]), ("'valid' is a list",)),
    (lambda content: [content.pop(name) for name in list(content)] and content.update(x=1), ("dict of x",)),
])
def test_what_is_wrong_is_said_by_key_and_shape(tmp_path, change, words):
    path = write_mmsa(tmp_path / "bad.pkl", change=change)
    with pytest.raises(InputError) as refused:
        read_mmsa(path, 3.0)
    assert "bad.pkl" in str(refused.value) and all(word in str(refused.value) for word in words), str(refused.value)

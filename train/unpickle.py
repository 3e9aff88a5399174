"""Reading a pickle without running what is in it: numpy arrays and plain Python come out, anything else is refused.

A pickle is a small program, and the plain `pickle` runs it. Here every name it asks for is looked up in ADMITTED, none of
numpy's own unpickling is called, and what the names stand for are placeholders of ours: the arrays are built from their bytes
afterwards, with dtypes of fixed kinds. Pickles of Python 2 and of numpy 1 and 2 read alike.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np

from msademo.errors import InputError

DTYPE = re.compile(r"[?]|[biufSUO]\d{0,6}")          # booleans, integers, floats, bytes, text and objects; no records, no dates


class Broken(ValueError):
    """The pickle does not describe what it claims to; the message says what."""


class DType:
    """numpy.dtype of a pickle: its code, then (by BUILD) its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code, *_):
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise Broken(f"an array of kind {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise Broken("a record array")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


def build_array(shape, dtype, raw, fortran: bool, known: dict | None = None):
    """(shape) array of the bytes, or of the list where it holds objects; checked before numpy sees it."""
    if not isinstance(dtype, DType) or not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape):
        raise Broken("an array without a shape or a kind")
    kind, count = dtype.numpy(), 1
    for n in shape:
        count *= n
    if kind.hasobject:
        if not isinstance(raw, list) or len(raw) != count:
            raise Broken("an array of objects that are not there")
        flat = np.empty(count, dtype=object)
        flat[:] = [resolve(value, known) for value in raw]
    else:
        if isinstance(raw, str):                       # bytes as Python 2 wrote them
            raw = raw.encode("latin-1")
        if not isinstance(raw, (bytes, bytearray, pickle.PickleBuffer)) or memoryview(raw).nbytes != count * kind.itemsize:
            raise Broken("an array whose bytes do not fit its shape")
        flat = np.frombuffer(raw, dtype=kind) if count and kind.itemsize else np.zeros(count, dtype=kind)
    return flat.reshape(shape, order="F" if fortran else "C")


class Array:
    """numpy.ndarray of a pickle: empty, then (by BUILD) (version, shape, dtype, fortran, bytes)."""

    __slots__ = ("parts",)

    def __init__(self, *parts):
        self.parts = parts

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Broken("an array without its content")
        shape, dtype, fortran, raw = state[-4:]
        self.parts = (shape, dtype, raw, fortran is True or fortran == 1)

    def numpy(self, known: dict) -> np.ndarray:
        if len(self.parts) != 4:
            raise Broken("an array without its content")
        return build_array(*self.parts, known)


def scalar(dtype, raw=None):
    return build_array((), dtype, raw, False)[()]


def encode(text, encoding="latin-1"):
    """_codecs.encode, by which protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Broken("bytes written in an unusual way")
    return text.encode("latin-1")


def plain(kind):
    """A container of plain Python from at most one list or bytes."""
    def make(*parts):
        if len(parts) > 1 or parts and not isinstance(parts[0], (list, tuple, bytes, bytearray, set)):
            raise Broken(f"an unusual {kind.__name__}")
        return kind(*parts)
    return make


NUMPY = [f"{package}.{module}" for package in ("numpy.core", "numpy._core") for module in ("multiarray", "numeric")]
ADMITTED = {
    **{f"{module}._reconstruct": lambda *_: Array() for module in NUMPY}, **{f"{module}.scalar": scalar for module in NUMPY},
    **{f"{module}._frombuffer": lambda raw, dtype, shape, order: Array(shape, dtype, raw, order == "F") for module in NUMPY},
    "numpy.dtype": DType, "numpy.ndarray": None, "_codecs.encode": encode,
    **{f"{module}.{kind.__name__}": plain(kind) for module in ("builtins", "__builtin__") for kind in (set, frozenset, bytes, bytearray, list, dict)},
    "collections.OrderedDict": lambda *parts: dict(*parts), "collections.defaultdict": lambda *_: {},
}


class Named:
    """What a name of the pickle stands for. An object of its own for every look-up: a pickle that sets attributes spoils nothing else."""

    __slots__ = ("name", "make")

    def __init__(self, name: str):
        self.name, self.make = name, ADMITTED[name]

    def __call__(self, *parts):
        if self.make is None:
            raise Broken(f"a call of {self.name}")
        return self.make(*parts)


class Reader(pickle.Unpickler):
    """pickle's own reader of opcodes, with no way to a name outside ADMITTED."""

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full not in ADMITTED:
            raise Broken(f"{full[:80]}, which is neither a numpy array nor plain Python")
        return Named(full)


def resolve(value, known: dict | None = None):
    """Placeholders replaced by their arrays, in nested dicts, lists and tuples. What a pickle holds once and names often is built once."""
    known = {} if known is None else known
    if isinstance(value, (Named, DType)):
        raise Broken("a type where a value should be")
    if not isinstance(value, (Array, dict, list, tuple)):
        return value
    if id(value) not in known:
        if isinstance(value, Array):
            found = value.numpy(known)
        elif isinstance(value, dict):
            found = {resolve(k, known): resolve(v, known) for k, v in value.items()}
        else:
            found = type(value)(resolve(item, known) for item in value)
        known[id(value)] = (value, found)                 # what was resolved is kept, so that its id stays its own
    return known[id(value)][1]


def read_pickle(path: str | Path):
    """The content of a pickle: dicts, lists, tuples, sets, numbers, text, bytes and numpy arrays (read-only).

    Raises InputError with one sentence for a file that is absent, cut off, no pickle, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}; give the path of an MMSA pickle, such as unaligned_50.pkl.")
    try:
        with open(path, "rb") as file:
            return resolve(Reader(file, encoding="latin-1").load())
    except Broken as error:
        raise InputError(f"{path.name} holds {error}; only numpy arrays and plain Python are read from a pickle, and nothing of it was run.") from error
    except MemoryError as error:
        raise InputError(f"{path.name} is larger than the memory there is; use a machine with more, or a smaller file.") from error
    except Exception as error:       # the opcodes of a damaged file raise whatever they run into: EOFError, KeyError, TypeError, RecursionError ...
        raise InputError(f"{path.name} cannot be read as a pickle (it may be cut off or of another format); download or export it again.") from error

"""One safetensors file a model: the weights and everything needed to use them.

The header's metadata holds one JSON document (key "msademo"): format version, method, config, and whatever else the
method needs at inference (feature statistics, label scale) or a reader wants to know (metrics with split and protocol,
data and terms, training command, seed, package versions). Nothing is ever unpickled.

Matrices are kept in 8 bits (`in_eight_bits`), those of the expression network in half precision (`in_half`), and come back as float32, so only
this file knows of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO, Iterator

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from msademo.errors import InputError

FORMAT_VERSION = 1
KEY = "msademo"
STEP = "#step"            # ends the name of the steps that belong to a matrix in 8 bits
METHOD_NAME = re.compile(r"[\w-]{1,40}")
RECORDED_PACKAGES = ("torch", "numpy", "transformers", "librosa", "mediapipe")


@dataclass(frozen=True)
class Checkpoint:
    """A read checkpoint: its method's name, the JSON metadata, and the tensors by name."""

    method: str
    meta: dict
    tensors: dict[str, torch.Tensor]
    path: Path

    @property
    def config(self) -> dict:
        return self.meta["config"]


def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def written_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to. A reader, or a run cut off by kill -9, sees the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, data: bytes) -> None:
    """written_atomically of what is in memory already."""
    with written_atomically(path) as file:
        file.write(data)


def save_checkpoint(path: str | Path, method: str, config: dict, tensors: dict[str, torch.Tensor], **meta) -> None:
    """Write a checkpoint atomically. `meta` must be JSON-serialisable; tensors are stored in the dtype they have."""
    document = {"format": FORMAT_VERSION, "method": method, "config": config, "packages": package_versions(), **meta}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={KEY: json.dumps(document, sort_keys=True)}))


def in_half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights for `save_checkpoint` with matrices in half precision, half the size; vectors and single numbers stay as they are."""
    return {name: tensor.half() if tensor.ndim >= 2 and tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def in_eight_bits(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights for `save_checkpoint` at half the size of half precision: each matrix (N, ...) as int8 with a step (N,) of its own a row, each
    value within half a step, which is 1/254 of its row's largest; all else in half precision. Numbers must be finite."""
    kept = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            kept[name] = tensor.half()
            continue
        rows = tensor.detach().float().flatten(1)
        step = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        kept[name], kept[name + STEP] = (rows / step[:, None]).round().to(torch.int8).reshape(tensor.shape), step
    return kept


def from_eight_bits(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of in_eight_bits, of whatever has steps; ValueError where steps do not belong to a matrix of theirs."""
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith(STEP)}
    for name, step in tensors.items():
        if name.endswith(STEP):
            matrix = whole.get(name.removesuffix(STEP))
            if matrix is None or matrix.dtype != torch.int8 or matrix.ndim < 2 or step.shape != matrix.shape[:1] or not step.is_floating_point():
                raise ValueError(f"{name} belongs to no matrix")
            whole[name.removesuffix(STEP)] = matrix.float() * step.float().reshape(-1, *[1] * (matrix.ndim - 1))
    return whole


def read_checkpoint(path: str | Path, method: str | None = None) -> Checkpoint:
    """Read a checkpoint without unpickling; `method`, when given, is the only one accepted.

    Raises InputError with one sentence when the file is absent, cut off, no safetensors, not ours, or of another method.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no checkpoint at {path}; train one or restore the file from the repository.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            tensors = from_eight_bits({name: file.get_tensor(name) for name in file.keys()})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as a safetensors checkpoint (it may be cut off, damaged or of another format); "
                         "restore it or train it again.") from error
    if header is None:
        raise InputError(f"{path.name} is a safetensors file but not a checkpoint of msademo; give one that `python -m train` wrote.")
    try:
        meta = json.loads(header)
        found, version_, config = meta["method"], meta["format"], meta["config"]
        if not isinstance(config, dict) or not isinstance(version_, int) or not METHOD_NAME.fullmatch(found):
            raise TypeError("the config is no object, the method no name or the format no number")
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path.name} has damaged metadata; restore it or train it again.") from error
    if version_ != FORMAT_VERSION:
        raise InputError(f"{path.name} has checkpoint format {version_}, and this msademo reads format {FORMAT_VERSION}; train it again.")
    if method is not None and found != method:
        raise InputError(f"{path.name} holds a {found} model where a {method} model is needed; give a {method} checkpoint.")
    return Checkpoint(method=found, meta=meta, tensors=tensors, path=path)


@contextmanager
def described_by(checkpoint: Checkpoint) -> Iterator[None]:
    """Around what makes a model of a checkpoint's config: InputError for whatever comes of a config that cannot be, or speaks of more than
    the file holds. A width of billions is refused before memory is asked for it."""
    unknown = f"{checkpoint.path.name} has a config this msademo does not know; train it again."
    held = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    if any(number > held for number in _whole_numbers(checkpoint.config)):
        raise InputError(unknown)
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise InputError(unknown) from error


def _whole_numbers(value) -> Iterator[int]:
    if isinstance(value, int):
        yield abs(value)
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(inner)


def check_fits(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """InputError unless a checkpoint has the very names and shapes of a model, which may be one without memory (on the device "meta")."""
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - checkpoint.tensors.keys())
    unknown = sorted(checkpoint.tensors.keys() - wanted.keys())
    name = checkpoint.path.name
    if missing or unknown:
        example = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not part of the model"
        raise InputError(f"{name} does not fit its model ({example}; {len(missing)} missing, {len(unknown)} unknown); train it again.")
    for key, tensor in checkpoint.tensors.items():
        if tensor.shape != wanted[key].shape:
            raise InputError(f"{name} does not fit its model: {key} has shape {tuple(tensor.shape)} where "
                             f"{tuple(wanted[key].shape)} is needed; train it again.")


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights in, after checking every name and shape (values are cast to the model's dtype)."""
    check_fits(model, checkpoint)
    wanted = model.state_dict()
    model.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in checkpoint.tensors.items()})


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal: how one checkpoint names another it was trained with."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

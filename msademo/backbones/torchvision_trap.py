"""torchvision beside a torch it was not compiled for: the one place where that is mended.

The wheel of torchvision that package indexes hold is built for torch with CUDA. Beside a CPU-only torch its compiled operators
do not load, and the mere import of torchvision (and so of timm and open_clip, and of parts of transformers) ends in "operator
torchvision::nms does not exist", because torchvision gives shape rules to two operators nobody has declared. Declaring them
is enough: nothing here ever calls them, and where the real ones load, nothing is done.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import torch

SCHEMAS = {"nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"}
_lock = Lock()
_declared: list[torch.library.Library] = []         # a Library takes its operators along when it is collected


def operator_exists(name: str) -> bool:
    """Is torchvision::<name> declared, by torchvision's own library or by us?"""
    return hasattr(torch.ops.torchvision, name)


def load_real_operators() -> bool:
    """Load torchvision's compiled operators when they fit this torch; False when they are absent or do not."""
    spec = find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
    return operator_exists("nms")


def mend() -> None:
    """Call before torchvision, timm or open_clip is imported. Safe to call often and from any thread."""
    with _lock:
        if "torchvision" in sys.modules or load_real_operators():
            return
        for name, schema in SCHEMAS.items():
            if not operator_exists(name):
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define(schema)
                _declared.append(library)

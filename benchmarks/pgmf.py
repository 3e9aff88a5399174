"""PGMF's models on one clip whose features are given, on one thread: milliseconds of the score, and of the score with every map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.__main__ import timed
from msademo.checkpoint import read_checkpoint
from msademo.features.vision import VISION_NAMES
from msademo.features.voice import VOICE_NAMES
from msademo.models.pglh import Batch
from msademo.models.pgmf import PGMF, STUDENT_LAYERS, PGMFConfig
from msademo.registry import build

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
TOKENS = {"text": 34, "audio": 100, "vision": 50}           # a clip of ten seconds with some 25 words
PROMPT = 120


def example(dims) -> Batch:
    rng = torch.Generator().manual_seed(0)
    shape = {m: (1, count) for m, count in TOKENS.items()}
    nothing = lambda: {m: torch.zeros(s, dtype=torch.bool) for m, s in shape.items()}
    return Batch({m: torch.randn(*s, dims[m], generator=rng) for m, s in shape.items()}, nothing(), nothing(),
                 prompt=torch.randn(1, PROMPT, dims["text"], generator=rng), prompt_padding=torch.zeros(1, PROMPT, dtype=torch.bool))


def model(name: str, config: PGMFConfig) -> tuple[PGMF, str]:
    """The shipped checkpoint's model, or an untrained one of the same shape, and which it is: the time does not depend on the weights."""
    path = CHECKPOINTS / f"{name}.safetensors"
    return (build(read_checkpoint(path)), path.name) if path.is_file() else (PGMF(config).eval(), "untrained")


def measure(runs: int) -> dict:
    dims = {"text": 384, "audio": len(VOICE_NAMES), "vision": len(VISION_NAMES)}
    student, student_from = model("pgmf_student", PGMFConfig(guided=False, dims=dims, **STUDENT_LAYERS))
    teacher, teacher_from = model("pgmf_teacher", PGMFConfig(dims=dims))
    batch = example(dims)
    plain = replace(batch, prompt=None, prompt_padding=None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            times = {"student": timed(lambda: student(plain), runs), "student_with_maps": timed(lambda: student.explain(plain), runs),
                     "teacher": timed(lambda: teacher(batch), runs), "teacher_with_maps": timed(lambda: teacher.explain(batch), runs),
                     "teacher_without_prompt": timed(lambda: teacher(plain), runs)}
    finally:
        torch.set_num_threads(before)
    return {"clip": {"tokens": TOKENS, "prompt_tokens": PROMPT, "features": "given", "threads": 1}, "student_from": student_from,
            "teacher_from": teacher_from, "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in (("student", student), ("teacher", teacher))},
            **times}

"""A Space on ZeroGPU lends a GPU for the time of a call, to functions that ask for it through the package `spaces`. Ours are small and stay on the CPU (docs/deploy.md)."""

from __future__ import annotations

from typing import Callable

import torch


def on_gpu(seconds: int) -> Callable[[Callable], Callable]:
    """A decorator: on ZeroGPU the function gets a GPU for that long at most. Elsewhere - without `spaces`, or where it lends none - it is the function itself."""
    try:
        from spaces import GPU
    except ImportError:
        return lambda function: function
    return GPU(duration=seconds)


def register() -> Callable[[], str]:
    """Have one function that asks for a GPU, without which a ZeroGPU Space does not start. Gives it: it names what it would run on."""

    @on_gpu(seconds=5)
    def device() -> str:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"

    return device

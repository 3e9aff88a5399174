"""msademo: prompt-guided multimodal sentiment analysis of clips, with parts missing. `from msademo import Analyzer`."""

from __future__ import annotations

__all__ = ["Analyzer", "InputError"]


def __getattr__(name: str):
    # Lazy, so that `import msademo.media` or `--help` does not wait for torch.
    if name == "Analyzer":
        from msademo.analyzer import Analyzer
        return Analyzer
    if name == "InputError":
        from msademo.errors import InputError
        return InputError
    raise AttributeError(f"module 'msademo' has no attribute {name!r}")

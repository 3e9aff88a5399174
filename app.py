"""Builds the demo and launches it; the entry point of `make demo` and of a Hugging Face Space."""

from msademo.analyzer import Analyzer
from msademo.ui.page import build_demo, launch

analyzer = Analyzer()
demo = build_demo(analyzer)

if __name__ == "__main__":
    launch(demo, analyzer)

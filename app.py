"""Builds the demo and launches it; the entry point of `make demo` and of a Hugging Face Space."""

import argparse

from msademo.analyzer import Analyzer
from msademo.ui.page import build_demo, launch

parser = argparse.ArgumentParser(description="Open the page. Host and port by GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.")
parser.add_argument("--sets", metavar="FOLDER", help="a folder with labelled sets for the Errors tab: a sub-folder a set, with its labels.csv and media")
options = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])

analyzer = Analyzer()
demo = build_demo(analyzer, options.sets)

if __name__ == "__main__":
    launch(demo, analyzer)

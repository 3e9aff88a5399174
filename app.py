"""Builds the demo and launches it; the entry point of `make demo` and of a Hugging Face Space."""

import argparse

from msademo.analyzer import Analyzer
from msademo.errors import InputError
from msademo.ui.page import build_demo, launch

parser = argparse.ArgumentParser(description="Open the page. Host and port by GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.")
parser.add_argument("--sets", metavar="FOLDER", help="a folder with labelled sets for the Errors tab: a sub-folder a set, with its labels.csv and media")
parser.add_argument("--mcp", action="store_true", help="offer the endpoints as MCP tools too (also GRADIO_MCP_SERVER=true); needs requirements-mcp.txt")
options = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])

analyzer = Analyzer()
try:
    demo = build_demo(analyzer, options.sets)
except InputError as error:             # a variable of the environment that cannot be used
    parser.exit(2, f"{error}\n")

if __name__ == "__main__":
    try:
        launch(demo, analyzer, options.mcp)
    except InputError as error:
        parser.exit(2, f"{error}\n")

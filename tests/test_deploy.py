"""What a Space and a container read agrees with what is here, and ZeroGPU's package changes nothing where it is absent."""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import yaml

from msademo.ui import zerogpu

ROOT = Path(__file__).resolve().parent.parent
HEAD = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
DOCKER = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))


def test_the_head_of_the_readme_is_what_a_space_wants():
    assert HEAD["sdk"] == "gradio" and HEAD["sdk_version"] == PINS["gradio"] and (ROOT / HEAD["app_file"]).is_file()
    assert HEAD["suggested_hardware"] in {"cpu-basic", "cpu-upgrade"} and len(HEAD["short_description"]) <= 60 and len(HEAD["title"]) <= 40
    assert {HEAD["colorFrom"], HEAD["colorTo"]} <= {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    known = {"title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "pinned", "short_description", "suggested_hardware", "license", "fullWidth", "tags"}
    assert set(HEAD) <= known


def test_one_python_everywhere():
    assert HEAD["python_version"] == re.search(r"^FROM python:(\d+\.\d+)-", DOCKER, re.M)[1] == re.search(r"PYTHON \?= python(\S+)", (ROOT / "Makefile").read_text())[1]


def test_packages_are_names_and_nothing_else():
    """Both readers hand every word to apt-get, so a comment would be a package."""
    lines = (ROOT / "packages.txt").read_text().splitlines()
    assert lines and all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", line) for line in lines)


def test_the_image_has_what_the_page_needs_and_no_secret():
    gone = lambda path: any(fnmatch(path, pattern.removeprefix("**/")) for pattern in IGNORED)
    assert not any(map(gone, ("app.py", "msademo", "checkpoints", "examples", "requirements.txt", "requirements-mcp.txt", "packages.txt", "README.md")))
    assert all(map(gone, (".git", ".venv", ".cache", ".msademo", "tests", "runs")))
    for line in re.findall(r"^COPY (.+)$", DOCKER, re.M):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() and not gone(source) for source in sources), line
    assert re.search(r"^USER page$", DOCKER, re.M) and not re.search(r"KEY|TOKEN|PASSWORD", DOCKER)
    assert "requirements-mcp.txt" in DOCKER and "MSADEMO_DATA=/data" in DOCKER


def test_nothing_that_is_left_out_of_the_image_is_imported():
    left_out = [name for name in IGNORED if (ROOT / name).is_dir() and (ROOT / name / "__init__.py").is_file()]
    assert {"train", "tests", "benchmarks"} <= set(left_out)
    pattern = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(left_out)})\b", re.M)
    assert not [path.name for path in (ROOT / "app.py", *(ROOT / "msademo").rglob("*.py")) if pattern.search(path.read_text(encoding="utf-8"))]


def test_without_the_package_a_function_stays_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)
    function = lambda: 3
    assert zerogpu.on_gpu(seconds=5)(function) is function
    monkeypatch.setattr(zerogpu.torch.cuda, "is_available", lambda: False)
    assert zerogpu.register()() == "CPU"


def test_with_it_one_function_asks_for_a_gpu(monkeypatch):
    asked = []

    def gpu(task=None, *, duration=None, size=None):
        def decorate(function):
            asked.append((function.__name__, duration))
            return function
        return decorate if task is None else decorate(task)

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    assert zerogpu.on_gpu(seconds=30)(len) is len and asked == [("len", 30)]
    device = zerogpu.register()
    assert asked[1:] == [("device", 5)] and device()

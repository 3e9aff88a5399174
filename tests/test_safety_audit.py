"""`make audit`: the public advisories about every installed package. Only there, for an advisory of today must not break yesterday's tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request

import pytest

SERVICE = "https://pypi.org/pypi/pillow/9.0.0/json"      # a version with known flaws
AUDIT = [sys.executable, "-m", "pip_audit", "--local", "--format=json", "--progress-spinner=off", "--timeout=30"]
NOT_ASKED = ("torch", "msademo")         # a build for CPUs alone has a version of its own, which no advisory names


def reachable() -> bool:
    """Are advisories to be had? A mirror of packages alone knows none, and pip-audit would find everything safe."""
    try:
        with urllib.request.urlopen(SERVICE, timeout=20) as answer:
            return bool(json.load(answer).get("vulnerabilities"))
    except (OSError, ValueError, AttributeError):
        return False


def findings(report: dict) -> tuple[list[str], list[str]]:
    """What advisories say, a line each, and the packages that nobody was asked about."""
    found = [f"{package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version yet'}"
             for package in report["dependencies"] for flaw in package.get("vulns", ())]
    return found, [package["name"] for package in report["dependencies"] if "skip_reason" in package and package["name"].lower() not in NOT_ASKED]


def test_findings_are_read_from_a_report():
    report = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "3"]}, {"id": "PYSEC-2", "fix_versions": []}]},
                               {"name": "b", "version": "1", "vulns": []}, {"name": "torch", "skip_reason": "x"}, {"name": "c", "skip_reason": "not found"}]}
    assert findings(report) == (["a 1: PYSEC-1, fixed in 2, 3", "a 1: PYSEC-2, fixed in no version yet"], ["c"])


@pytest.mark.skipif(os.environ.get("MSADEMO_AUDIT") != "1", reason="asks a public service; `make audit` does")
def test_no_installed_package_has_an_advisory():
    if importlib.util.find_spec("pip_audit") is None:
        pytest.skip("pip-audit is not installed; requirements-dev.txt names it")
    if not reachable():
        pytest.skip(f"the advisories cannot be reached ({SERVICE})")
    done = subprocess.run(AUDIT, capture_output=True, text=True, timeout=900)
    assert done.stdout.lstrip().startswith("{"), done.stderr[-1000:]
    found, unknown = findings(json.loads(done.stdout))
    assert not found, "\n".join(found)
    assert not unknown, f"nothing is known of {', '.join(unknown)}"

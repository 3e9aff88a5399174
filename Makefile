# `make demo` opens the page, `make test` runs the tests; both set up .venv first and do nothing twice.
PYTHON ?= python3.11
PIP = .venv/bin/pip install --quiet --disable-pip-version-check

.PHONY: demo test bench audit clean

demo: .venv/demo.done
	.venv/bin/python app.py

test: .venv/test.done
	.venv/bin/python -m pytest -q tests

bench: .venv/demo.done
	.venv/bin/python -m benchmarks clip

audit: .venv/test.done
	MSADEMO_AUDIT=1 .venv/bin/python -m pytest -q -rs tests/test_safety_audit.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.done: requirements.txt | .venv/bin/python
	$(PIP) -r requirements.txt
	touch $@

.venv/test.done: requirements-dev.txt .venv/demo.done
	$(PIP) -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .cache runs

# `make` runs the pipeline on a fresh machine, `make test` the tests; each makes the environment it needs.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ENVIRONMENT := .venv/requirements.lock

.PHONY: run verify trackers test test-slow lint lock clean
.DEFAULT_GOAL := run

run: $(ENVIRONMENT)
	dvc repro
	@echo
	@echo "Test metrics (metrics/evaluate/metrics.json):"
	@dvc metrics show metrics/evaluate/metrics.json
	@dvc plots show > /dev/null
	@echo "Plots: $(CURDIR)/dvc_plots/index.html"

# Every output that is here, and all of DVC's cache, against the checksums that DVC wrote down.
verify: $(ENVIRONMENT)
	python -m apps.verify

# The clients of MLflow and TensorBoard: docs/trackers.md.
trackers: $(ENVIRONMENT)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-trackers.lock

test: $(ENVIRONMENT)
	python -m pytest

test-slow: $(ENVIRONMENT)
	python -m pytest -m slow

lint: $(ENVIRONMENT)
	ruff check .
	ruff format --check .
	mypy

# The lock is exact for every Python and platform that pyproject.toml admits, and names no index.
lock:
	uv pip compile --universal --generate-hashes --extra cpu --extra dev --no-emit-index-url --no-emit-find-links \
		--no-header --python-version 3.11 --upgrade --output-file requirements.lock pyproject.toml
	uv pip compile --universal --generate-hashes --group trackers --constraints requirements.lock --no-emit-index-url \
		--no-emit-find-links --no-header --python-version 3.11 --upgrade --output-file requirements-trackers.lock

clean:
	rm -rf .venv .temper dvc_plots

# Copied last: an environment that was cut off while it was made has no copy, and is made anew.
$(ENVIRONMENT): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"expected Python 3.11 to 3.13, received " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	@test ! -L .venv || { echo "expected .venv to be a folder of this clone, received a link: remove it" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	cp requirements.lock $@

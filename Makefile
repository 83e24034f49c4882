# `make` runs the pipeline on a fresh machine, `make test` the tests; each makes the environment it needs.
# GPU=1 before or after a target takes TensorFlow with CUDA for it, and JAX=1 takes JAX; each has a lock and an
# environment of its own, so that going from one to another installs nothing again.
PYTHON ?= python3
ifneq ($(and $(GPU),$(JAX)),)
$(error expected GPU=1 or JAX=1, received both: requirements-jax.lock is for the CPU)
endif
KIND := $(if $(GPU),-gpu)$(if $(JAX),-jax)
LOCK := requirements$(KIND).lock
VENV := .venv$(KIND)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
ENVIRONMENT := $(VENV)/$(LOCK)
SERVE := .venv-serve/requirements-serve.lock
MODELS ?= $(wildcard models/export/*.tflite)
COMPILE := uv pip compile --universal --generate-hashes --extra dev --no-emit-index-url --no-emit-find-links \
	--no-header --python-version 3.11 --quiet
COMPILE_GROUP := uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--python-version 3.11 --quiet --upgrade --constraints requirements.lock --group

.PHONY: run verify trackers onnx sweep queue ray page-runtime hub serve serve-environment test test-slow lint lock clean
.DEFAULT_GOAL := run

run: $(ENVIRONMENT)
	dvc repro
	@echo
	@echo "On the test images (metrics/evaluate/metrics.json has the rest):"
	@grep -E '"(warm_up_)?(accuracy|macro_f1|loss)"' metrics/evaluate/metrics.json
	@dvc plots show > /dev/null
	@echo "Plots: $(CURDIR)/dvc_plots/index.html"

# Every output that is here, and all of DVC's cache, against the checksums that DVC wrote down.
verify: $(ENVIRONMENT)
	python -m apps.verify

# The clients of MLflow and TensorBoard: docs/trackers.md.
trackers: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-trackers.lock

# What converts to ONNX and runs it: docs/export.md.
onnx: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-onnx.lock

# What searches params: docs/sweep.md.
sweep: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sweep.lock

# DVC's queue over HTTP, which needs the pipeline's environment: docs/queue.md.
queue: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-queue.lock

# What runs experiments on several machines, for each of them: docs/cluster.md.
ray: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-ray.lock

# What runs models in browsers, for export.formats: [page] (docs/page.md). It needs npm.
page-runtime: $(ENVIRONMENT)
	python -m apps.page_runtime

# KerasHub, for backbone.name: hub (docs/backbones.md): an environment of its own, beside the one of the pipeline.
hub: .venv-hub/requirements-hub.lock

# Without looking at dependencies: KerasHub asks for tensorflow-text and so for a second TensorFlow, which no network of
# images needs. The lock has all the others.
.venv-hub/requirements-hub.lock: requirements-hub.lock
	$(PYTHON) -m venv --clear .venv-hub
	.venv-hub/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

# Exported models over HTTP: docs/serve.md. The server has an environment of its own, without TensorFlow.
serve: $(SERVE)
	.venv-serve/bin/python -m apps.serve --models $(MODELS) $(OPTIONS)

serve-environment: $(SERVE)

# TESTS=tests/test_jax.py runs those of one file.
test: $(ENVIRONMENT)
	python -m pytest $(TESTS)

test-slow: $(ENVIRONMENT)
	python -m pytest -m slow $(TESTS)

lint: $(ENVIRONMENT)
	ruff check .
	ruff format --check .
	mypy

# A lock is exact for every Python and platform that pyproject.toml admits, and names no index. What two locks share has
# one version, which the first decides: experiments on other hardware then differ in nothing else.
lock:
	$(COMPILE) --extra cpu --upgrade --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra gpu --upgrade --constraints requirements.lock --output-file requirements-gpu.lock pyproject.toml
	$(COMPILE) --extra jax --upgrade --constraints requirements.lock --output-file requirements-jax.lock pyproject.toml
	$(COMPILE_GROUP) trackers --output-file requirements-trackers.lock
	$(COMPILE_GROUP) onnx --output-file requirements-onnx.lock
	$(COMPILE_GROUP) sweep --output-file requirements-sweep.lock
	$(COMPILE_GROUP) serve --output-file requirements-serve.lock
	$(COMPILE_GROUP) queue --output-file requirements-queue.lock
	$(COMPILE_GROUP) ray --output-file requirements-ray.lock
	@mkdir -p .temper  # keras-hub needs an older kagglesdk than kaggle, and no tensorflow-text: see `hub`
	grep -E '^[a-z0-9][^ ]*==' requirements.lock | sed 's/ *\\$$//' | grep -v '^kagglesdk==' > .temper/constraints.txt
	echo "tensorflow-text ; sys_platform == 'none'" > .temper/overrides.txt
	uv pip compile --universal --generate-hashes --group hub --constraints .temper/constraints.txt --no-emit-index-url \
		--override .temper/overrides.txt --no-emit-find-links --no-header --python-version 3.11 --upgrade --quiet \
		--output-file requirements-hub.lock

clean:
	rm -rf .venv .venv-gpu .venv-jax .venv-hub .venv-serve .temper dvc_plots

# Copied last: an environment that was cut off while it was made has no copy, and is made anew.
define make-environment
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"expected Python 3.11 to 3.13, received " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	@test ! -L $(@D) || { echo "expected $(@D) to be a folder of this clone, received a link: remove it" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	cp $< $@
endef

$(ENVIRONMENT): $(LOCK)
	$(make-environment)

$(SERVE): requirements-serve.lock
	$(make-environment)

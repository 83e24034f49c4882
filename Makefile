# `make` runs the pipeline on a fresh machine, `make test` runs the tests; each makes the environment that it needs.
# GPU=1 before or after a target uses TensorFlow with CUDA, and JAX=1 uses JAX. Each has a lock file and an environment
# of its own, so that switching between them installs nothing again.
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

# Compares every output in the workspace, and all of DVC's cache, with the checksums that DVC recorded.
verify: $(ENVIRONMENT)
	python -m apps.verify

# The clients of MLflow and TensorBoard: docs/trackers.md.
trackers: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-trackers.lock

# The packages that convert to ONNX and run it: docs/export.md.
onnx: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-onnx.lock

# The packages for hyperparameter search: docs/sweep.md.
sweep: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sweep.lock

# The packages that serve DVC's queue over HTTP, in the pipeline's environment: docs/queue.md.
queue: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-queue.lock

# Ray, which runs experiments on several machines; each of them needs it: docs/cluster.md.
ray: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-ray.lock

# LiteRT.js, which runs models in browsers, for export.formats: [page] (docs/page.md). This needs npm.
page-runtime: $(ENVIRONMENT)
	python -m apps.page_runtime

# KerasHub, for backbone.name: hub (docs/backbones.md), in an environment of its own.
hub: .venv-hub/requirements-hub.lock

# --no-deps: KerasHub requires tensorflow-text, and through it a second TensorFlow, which no image network needs. The
# lock file lists all other dependencies.
.venv-hub/requirements-hub.lock: requirements-hub.lock
	$(PYTHON) -m venv --clear .venv-hub
	.venv-hub/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

# Exported models over HTTP: docs/serve.md. The server has an environment of its own, without TensorFlow.
serve: $(SERVE)
	.venv-serve/bin/python -m apps.serve --models $(MODELS) $(OPTIONS)

serve-environment: $(SERVE)

# TESTS=tests/test_jax.py runs the tests of one file.
test: $(ENVIRONMENT)
	python -m pytest $(TESTS)

test-slow: $(ENVIRONMENT)
	python -m pytest -m slow $(TESTS)

lint: $(ENVIRONMENT)
	ruff check .
	ruff format --check .
	mypy

# A lock file pins every package for all Pythons and platforms that pyproject.toml allows, and names no index. Packages
# in several lock files have the version of the first one, so experiments on other hardware differ in nothing else.
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

# The lock file is copied last: if making the environment was interrupted, the copy is missing, and it is made again.
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

# Every habit by name; `make help` lists them. Each target first sets up what is missing, in .venv.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The Python to set up with (`make lab PYTHON=python3.12`); without it, the first of these that is 3.11 or newer.
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# More options for JupyterLab, pytest and nbconvert, for example LAB_FLAGS="--port 9000 --no-browser".
LAB_FLAGS ?=
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -ra
CHECK_FLAGS ?= -n auto --maxprocesses 4 --dist worksteal -q --no-showlocals
RUN_FLAGS ?=
BENCH ?=

# The container engine (docker where it answers, else podman), the image's name, and more options for building it
# (IMAGE_FLAGS), for the engine itself (ENGINE_FLAGS) and for the containers of image-test (CONTAINER_FLAGS).
# Without CUDA: make image IMAGE=odkit:cpu CUDA=cpu. With CUDA 12.6, for drivers under 580 and GPUs before Turing: make
# image CUDA=126. A driver serves all of its CUDA's major version, so that is what is asked of it.
ENGINE ?= $(if $(shell docker info >/dev/null 2>&1 && echo yes),docker,podman)
IMAGE ?= odkit
BASE_IMAGE ?=
CUDA ?=
REQUIRE_CUDA = $(if $(filter-out cpu,$(CUDA)),cuda>=$(shell echo $(CUDA) | cut -c 1-2).0)
# Where the image came from, beside it in the store; only docker's containerd store can hold that.
ATTESTATIONS = $(if $(findstring docker,$(ENGINE)),$(shell docker info --format '{{.DriverStatus}}' 2>/dev/null \
	| grep -q containerd.snapshotter && echo --provenance=mode=max --sbom=true))
IMAGE_FLAGS ?=
ENGINE_FLAGS ?=
CONTAINER_FLAGS ?=

export FIFTYONE_DO_NOT_TRACK ?= 1

.PHONY: help setup lab run notebooks check test test-extras bench soak fuzz reliability image image-test lint format lock clean

help:  ## list what make can do
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY)  ## install everything into .venv, if it is not there yet

# Jupyter refuses to run as root unless told to; in a container there may be nobody else. It listens on loopback
# alone and asks for its token either way. The defaults of its settings are those of the image, by which it does not ask
# whether to fetch news; a person's own settings stand above them.
lab: $(READY)  ## start JupyterLab and open the first notebook
	@settings=$(VENV)/share/jupyter/lab/settings; [ -e $$settings/overrides.json ] || \
		{ mkdir -p $$settings && cp container/overrides.json $$settings; }
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
		$$([ "$$(id -u)" != 0 ] || echo --allow-root) $(LAB_FLAGS)

run: $(READY)  ## run all notebooks top to bottom without a browser; they land in executed/
	@echo "Running every notebook; the executed copies go to executed/"
	$(BIN)/jupyter nbconvert --to notebook --execute --ExecutePreprocessor.kernel_name=python3 \
		--ExecutePreprocessor.timeout=1800 --output-dir executed $(RUN_FLAGS) notebooks/*.ipynb
	@echo "Done: $$(ls executed/*.ipynb | wc -l) notebooks in executed/"

notebooks: run  ## run all notebooks and put them, tidied, into notebooks/, as they are committed
	$(BIN)/python tools/app_pictures.py executed/*.ipynb
	$(BIN)/python tools/tidy_notebooks.py executed/*.ipynb

# What is left out starts processes that train, a database, a browser or a kernel, or is slow by itself.
check: $(READY)  ## run the quick tests, in a minute or so: for every save
	$(BIN)/python -m pytest tests -m "not (worker or database or browser or notebook or slow or gpu or image)" \
		$(CHECK_FLAGS)

test: $(READY)  ## run all tests, the notebooks among them
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# A part alone: make bench BENCH="loading reading". What trains for hours is not among them (bench/accuracy.py,
# bench/tiles.py), nor what wants a GPU (bench/gpu.py): each is started by itself.
bench: $(READY)  ## measure odkit beside the alternatives, in 20 minutes; bench/RESULTS.md is then of this machine
	$(BIN)/python bench/report.py $(BENCH)

# What it measured is written to docs/: soak.json and soak.svg. SOAK=5 takes five minutes.
SOAK ?= 60
soak: $(READY)  ## an hour of start, stop, kill, resume, export and browse: nothing may be left, lost or grow
	$(BIN)/python bench/soak.py $(SOAK)

# Seconds for each parser; FUZZ="120 coco csv" for some of them. Wants `make test-extras`.
FUZZ ?= 30
fuzz: $(READY)  ## feed every parser with what coverage leads to; what breaks one is kept in tests/fuzz/found
	$(BIN)/python -m tests.fuzz.fuzz --seconds $(FUZZ)

reliability: $(READY)  ## try every hostile case, and write docs/reliability.md anew
	$(BIN)/python -m tests.hostile.page --measure

test-extras: $(READY)  ## install the optional packages that some tests want, and are skipped without
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r tests/extras.lock

image:  ## build the container image with docker or podman
	$(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) --tag $(IMAGE) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)".*/\1/p' odkit/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) \
		--build-arg CREATED=$$(git show --no-patch --format=%cI HEAD 2>/dev/null) \
		$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
		$(if $(CUDA),--build-arg CUDA=$(CUDA) --build-arg "NVIDIA_REQUIRE_CUDA=$(REQUIRE_CUDA)") \
		$(ATTESTATIONS) $(IMAGE_FLAGS) .

image-test: $(READY)  ## test the built image on running containers
	ODKIT_ENGINE="$(ENGINE)" ODKIT_IMAGE="$(IMAGE)" ODKIT_ENGINE_FLAGS="$(ENGINE_FLAGS)" \
		ODKIT_RUN_FLAGS="$(CONTAINER_FLAGS)" $(BIN)/python -m pytest tests/container -m image -o faulthandler_timeout=3700 -ra

lint: $(READY)  ## check style, types, the order of the rooms and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@files=$$(ls Dockerfile 2>/dev/null || true); [ -z "$$files" ] || (set -x; $(BIN)/hadolint $$files)

format: $(READY)  ## put the code into its format and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --quiet --generate-hashes \
	--custom-compile-command "make lock" $(LOCK_FLAGS)

# Supervision wants opencv-python, which overwrites the opencv-python-headless that FiftyOne needs and does as well;
# OpenVINO does without what reports its use to its makers.
lock: $(READY)  ## write both locks anew (LOCK_FLAGS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml --extra dev --output-file requirements.lock
	$(COMPILE) tests/extras.in --constraints requirements.lock --output-file tests/extras.lock \
		--no-emit-package opencv-python --no-emit-package openvino-telemetry --no-emit-package pip \
		$$(sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)

clean:  ## remove .venv and what tools left behind (not runs/)
	rm -rf $(VENV) executed build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# -- setting up ------------------------------------------------------------------------------------------------------

$(BIN)/pip:
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "odkit needs Python 3.11 or newer; tried: $(PYTHONS)" >&2; \
		for python in $(PYTHONS); do \
			echo "  $$python is $$($$python --version 2>/dev/null || echo 'not here')" >&2; \
		done; \
		echo "Install Python 3.11 (Debian and Ubuntu: apt-get install python3.11 python3.11-venv; macOS: brew install" >&2; \
		echo "python@3.11), or name yours: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$found --version) ($$(command -v $$found))"; \
	if ! $$found -m venv $(VENV) || ! $(BIN)/python -m pip --version >/dev/null; then \
		echo "$$found cannot make a virtual environment: its venv or pip is missing." >&2; \
		echo "Debian and Ubuntu: apt-get install $$($$found -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
		exit 1; \
	fi

$(READY): requirements.lock pyproject.toml | $(BIN)/pip
	@echo "Installing into $(VENV): PyTorch, FiftyOne, JupyterLab and what they need, in the versions of requirements.lock."
	@echo "The first time this downloads about 3 GB and takes 7 GB of disk; after that it is skipped."
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

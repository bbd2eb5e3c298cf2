# The commands of the project; `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
CORPUS ?= demo
OUT    ?= data/features
STORE  ?=
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-dev
DEMO   := $(VENV)/.ready-demo
# Compilers and BLAS of one process must not fight with those of the next.
export NUMBA_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help features train test test-all lint bench scores clean venv

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

features: $(DEMO)  ## Build a store: make features [CORPUS=maestro MAESTRO_DIR=… OUT=… WORKERS=…]
	$(BIN)/xmodal-features build --corpus $(CORPUS) --out $(OUT) \
	  $(if $(MAESTRO_DIR),--root $(MAESTRO_DIR)) $(if $(WORKERS),--workers $(WORKERS))

train: $(DEMO)  ## Train one run on the newest store: make train [DESCRIPTOR=A4 MECHANISM=reverse_xattn]
	$(BIN)/xmodal-train --descriptor $(or $(DESCRIPTOR),A4) --mechanism $(or $(MECHANISM),reverse_xattn) \
	  $(if $(STORE),--store $(STORE))

test: $(READY)  ## Quick tests (at most 5 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not full and not gpu"

test-all: test  ## Everything: then faults, kills, real recordings (at most 15 minutes in all)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "full or gpu" --durations 15

lint: $(READY)  ## Style, types, spelling, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

# Real recordings are measured where XMODAL_TEST_DATA names their folder; the tables name the source.
bench: $(READY)  ## Measure, write benchmarks/results/*.json but the scores, and the tables (50 minutes; nothing else running)
	for name in features descriptors midi rendering scale memory train retrieval search quality agreement; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; \
	done
	$(BIN)/python -m benchmarks.tables

# Trains 2 arms x 3 seeds on each corpus; runs/ keeps what is trained already.
scores: $(READY)  ## Train and score the arms of the README, and search (55 minutes; needs XMODAL_TEST_DATA)
	for name in demo maps; do \
	  $(BIN)/python -m benchmarks.scores --name $$name || exit 1; \
	done
	$(BIN)/python -m benchmarks.search_quality
	$(BIN)/python -m benchmarks.tables

clean:  ## Remove caches (stores and runs stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Two environments in one folder: `make features` needs no test tools.
$(DEMO): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[demo,analysis]"
	touch $@

$(READY): $(DEMO)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

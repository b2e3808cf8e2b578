# Everything runs in an environment of its own; nothing is installed outside $(VENV).
#   make demo PYTHON=python3.12 DEMO_OUTPUT=somewhere
#   make test ARGS='-k recipe -x'

PYTHON ?= python3
VENV ?= .venv
DEMO_OUTPUT ?= edgekit-demo
BINDINGS ?= .tensorrt-bindings
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.edgekit-installed
SOURCES := edgekit tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help install demo test tensorrt-bindings lint format types contracts schema check clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make the environment and install the tested set into it

$(STAMP): pyproject.toml constraints.txt tests/second_libraries.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgekit is built with Python 3.11 or later; name one with: make PYTHON=...")'
	@echo "Installing the tested set into $(VENV) (once; some minutes and about 1.5 GB)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --requirement tests/second_libraries.txt
	@touch $@

demo: $(STAMP) ## run the main job on the embedded default
	@$(BIN)/edgekit demo --output $(DEMO_OUTPUT)

# One thread for each worker's numerics: the workers already share the cores. Files go to the workers in the order of
# tests/conftest.py, the slow ones first.
test: $(STAMP) ## run the tests; ARGS='...' goes to pytest
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# NVIDIA's wheels, about 1 MB each, under NVIDIA's licence; they go into a folder of their own and are never shipped.
tensorrt-bindings: $(STAMP) ## check names and signatures against NVIDIA's bindings (downloads them; needs cc)
	@$(BIN)/python tests/bindings/install_wheels.py $(BINDINGS)
	@EDGEKIT_TENSORRT_BINDINGS=$(BINDINGS) $(BIN)/python -m pytest -m bindings tests/bindings $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(STAMP) ## check the types, strictly
	$(BIN)/mypy

contracts: $(STAMP) ## check which package may import which
	$(BIN)/lint-imports --no-logo

schema: $(STAMP) ## write the schemas that editors complete recipes and policies from
	@$(BIN)/python -c 'from pathlib import Path; from edgekit.config.schema import write_recipe_schema as write; write(Path("calibration/recipe.schema.json"))'
	@$(BIN)/python -c 'from pathlib import Path; from edgekit.config.policy_schema import write_policy_schema as write; write(Path("calibration/policy.schema.json"))'

check: lint types contracts test ## run every check

clean: ## remove the environment, caches and results
	rm -rf $(VENV) $(DEMO_OUTPUT) $(BINDINGS) build dist edgekit.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +

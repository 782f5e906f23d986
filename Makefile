# `make help` lists the targets. Everything runs in .venv, which `make` creates and refreshes when pyproject.toml changes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench-data ui compile clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## raw pages to a registered chat model: the tiny recipe, about 20 minutes on 2 cores
	$(BIN)/qwenops run tiny --out runs/tiny

test: $(STAMP) ## the default test suite, with the smoke recipe end to end
	$(BIN)/python -m pytest

test-all: $(STAMP) ## the tests that need more workers or minutes as well
	$(BIN)/python -m pytest -m ''

lint: $(STAMP) ## ruff, pyright, import rules, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell components pipelines tests README.md CHANGELOG.md

bench-data: $(STAMP) ## the data engine beside its yardsticks; BENCH="rules --texts FILE" chooses
	$(BIN)/python tests/bench/bench_data.py $(BENCH)

ui: $(STAMP) ## open the MLflow UI of runs/tiny on http://127.0.0.1:5000
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///$(CURDIR)/runs/tiny/mlflow.db

compile: $(STAMP) ## write the tiny pipeline for a cluster to runs/tiny.yaml
	$(BIN)/qwenops compile tiny --placement h200_node -o runs/tiny.yaml

clean: ## remove the environment; runs and downloads stay
	rm -rf $(VENV)

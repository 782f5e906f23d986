# `make help` lists the targets. Everything runs in .venv, which `make` creates and refreshes when pyproject.toml changes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
# What is compiled once is not compiled again in each of hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test test-fast test-all test-chart bench-data bench-model bench-train bench-gpu lint types ui compile compile-check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## raw pages to a registered chat model: the tiny recipe, about 10 minutes on 2 cores
	$(BIN)/qwenops run tiny --out runs/tiny

test: $(STAMP) ## the default test suite, with the smoke recipe end to end
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-fast: $(STAMP) ## the tests that take no run, server, browser or Ray: under a minute, between two edits
	$(BIN)/python -m pytest --fast -n auto --maxprocesses 4

test-all: $(STAMP) ## the tests that need more workers or minutes as well
	$(BIN)/python -m pytest -m ''

test-chart: $(STAMP) ## the Helm chart with the real helm, Kubernetes' schemas, images and runbook; fetches its tools into a cache
	$(BIN)/python infra/ci/fetch_tools.py
	$(BIN)/python -m pytest tests/helm tests/infra

bench-train: $(STAMP) ## tokens per second of training against transformers' Trainer, on this machine
	PYTHONPATH=. $(BIN)/python tests/bench/bench_train.py

bench-gpu: ## MFU, tokens per second and memory on one GPU; needs only torch and transformers of that machine
	$(PYTHON) tests/bench/bench_gpu.py

lint: $(STAMP) ## ruff, import rules, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/codespell components pipelines tests helm infra README.md CHANGELOG.md

types: $(STAMP) ## pyright alone
	$(BIN)/pyright

bench-model: $(STAMP) ## dual chunk attention against causal SDPA, the chunked loss against materialised logits
	PYTHONPATH=. $(BIN)/python tests/bench/bench_model.py
	PYTHONPATH=. $(BIN)/python tests/bench/bench_loss.py

bench-data: $(STAMP) ## the data engine beside its yardsticks; BENCH="rules memory --texts FILE" chooses
	$(BIN)/python tests/bench/bench_data.py $(BENCH)

ui: $(STAMP) ## open the MLflow UI of your runs on http://127.0.0.1:5000
	$(BIN)/qwenops ui

compile: $(STAMP) ## rewrite pipelines/compiled: every recipe, cluster placement and pipeline
	$(BIN)/python -m qwenops_pipelines.compile

compile-check: compile ## fail when pipelines/compiled in git is not what the code compiles to
	test -z "$$(git status --porcelain -- pipelines/compiled)" || { git status --short -- pipelines/compiled; echo "stale: commit what make compile wrote"; exit 1; }

clean: ## remove the environment; runs and downloads stay
	rm -rf $(VENV)

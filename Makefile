# damagewatch: `make demo` shows it working, `make test` tests it; both do all set-up. Needs Python 3.11+ and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9

.PHONY: help demo test lint format proto bench trials rules verify-deploy sbom audit lock train clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "damagewatch needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Each set of packages is installed from its lock, hashes checked, without removing what another set brought.
.venv/.serve: $(UV) locks/serve.txt pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/serve.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.venv/.develop: .venv/.serve locks/develop.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/develop.txt
	@touch $@

.venv/.train: .venv/.develop locks/train.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/train.txt
	@touch $@

demo: .venv/.serve ## The main job, on a real Kafka: photos in, alerts out (PHOTOS=folder takes your own)
	$(BIN)/damagewatch demo $(if $(PHOTOS),--photos "$(PHOTOS)")

$(BIN)/promtool: deploy/prometheus/fetch.sh | .venv/.develop
	@deploy/prometheus/fetch.sh $(BIN) || echo "tests that need prometheus and promtool will be skipped" >&2

test: .venv/.develop $(BIN)/promtool ## All tests, against one real Kafka and the real vector engine
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.develop ## ruff, mypy --strict, import-linter, buf, and that the generated code is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services/damagewatch training/damagewatch_training bench trials
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python proto/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check

format: .venv/.develop ## Lays the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/.develop ## Python code and stubs from proto/
	$(BIN)/python proto/generate.py

bench: .venv/.develop ## Photos a second end to end, against the bare work, and seconds a stage
	$(BIN)/python -m bench $(ARGS)

trials: .venv/.develop ## The hard promises, tried on a real Kafka: recall, kills, outages, broken inputs (minutes each)
	for trial in recall kills outages broken; do $(BIN)/python -m trials $$trial $(ARGS); done

train: .venv/.train ## The training environment (torch): then .venv/bin/damagewatch-train --help

LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate
WORKING := --extra cpu --extra kafka-dev --extra capacity
CHECKING := $(WORKING) --extra tracing --extra test --extra lint --extra deploy
IMAGE := --extra s3 --extra gcs --extra tracing
lock: $(UV) ## Resolves the locks again (ARGS=--upgrade for newer versions)
	$(LOCK) $(ARGS) --python-version 3.11 pyproject.toml $(WORKING) -o locks/serve.txt
	$(LOCK) $(ARGS) --python-version 3.11 pyproject.toml $(CHECKING) -c locks/serve.txt -o locks/develop.txt
	$(LOCK) $(ARGS) --python-version 3.11 pyproject.toml $(CHECKING) --extra train -c locks/develop.txt -o locks/train.txt
	$(LOCK) $(ARGS) --python-version 3.13 --group build -o locks/build.txt
	$(LOCK) $(ARGS) --python-version 3.13 pyproject.toml --extra cpu $(IMAGE) -c locks/serve.txt -o locks/image-cpu.txt
	$(LOCK) $(ARGS) --python-version 3.13 pyproject.toml --extra cuda $(IMAGE) -c locks/serve.txt -o locks/image-gpu.txt

rules: .venv/.develop ## The PrometheusRule of k8s/ from deploy/prometheus
	$(BIN)/python k8s/components/monitoring/generate.py

verify-deploy: .venv/.develop $(BIN)/promtool ## deploy/, k8s/ and the workflows, by every validator that is at hand
	$(BIN)/python -m pytest tests/deploy $(ARGS)

sbom: .venv/.develop ## Bills of materials of the images (CycloneDX), from their locks: dist/sbom-*.json
	@mkdir -p dist
	for variant in cpu gpu; do $(BIN)/cyclonedx-py requirements locks/image-$$variant.txt --pyproject pyproject.toml \
	  --mc-type application --output-reproducible -o dist/sbom-$$variant.json; done

audit: .venv/.develop ## Known vulnerabilities of what the images hold; fails where it cannot be told
	for variant in cpu gpu; do $(BIN)/pip-audit --strict --require-hashes --disable-pip -r locks/image-$$variant.txt; done

clean: ## Removes what was built; your data folder stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

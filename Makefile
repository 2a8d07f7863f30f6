# Two commands: `make run` and `make test`. Everything lives in .venv; nothing else has to be installed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME := $(CURDIR)
export DAGSTER_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE ?= 1
DEMO := data/demo
SEED ?= 1

.PHONY: setup run test test-slow ui clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/newsrec simulate --out $(DEMO) --size demo --seed $(SEED)
	$(BIN)/newsrec run --dataset simulated --data-root $(DEMO)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/dg check defs
	$(BIN)/python -m pytest --cov --cov-report=term

test-slow: setup
	$(BIN)/python -m pytest -m "slow or not slow"

ui: setup
	NEWSREC_DATASET=$${NEWSREC_DATASET:-simulated} NEWSREC_DATA_ROOT=$${NEWSREC_DATA_ROOT:-$(DEMO)} $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

# Two commands: `make run` and `make test`. Everything lives in .venv; nothing else has to be installed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME := $(CURDIR)
export DAGSTER_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE ?= 1
# Two processes, each with the tests of whole files.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
DEMO := data/simulated
SEED ?= 1
# make run SEED=2 REPLACE=1 writes another demo log over the one that is there.
REPLACE ?=

.PHONY: setup run test test-slow coverage test-faults month backfill-check fuzz seeds calibrate bench bench-compare ui clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/newsrec simulate --out $(DEMO) --size demo --seed $(SEED) $(if $(REPLACE),--replace)
	$(BIN)/newsrec run --dataset simulated --data-root $(DEMO)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/dg check defs
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST)

# Which lines the quick tests run.
coverage: setup
	$(PYTEST) -m "not slow" --cov --cov-report=term

# Kills at random moments, full disk, damage, a store that is away: prints fault x promise (docs/faults.md).
test-faults: setup
	$(BIN)/python -m tests.faults --kills 200 --write docs/faults.md

# Thirty nights with a real daemon, then every number verified and replayed: prints the ledger of docs/month.md.
month: setup
	$(BIN)/python -m tests.month

# Six weeks by one backfill and by single runs in shuffled order: the same bytes everywhere.
backfill-check: setup
	$(BIN)/python -m tests.month.backfill

# Damaged sources, ten thousand, through every reader, then damaged files of the lake: the ledgers of docs/hostile_input.md.
fuzz: setup
	$(BIN)/python -m tests.fuzz --cases 10000 --seed 0
	$(BIN)/python -m tests.fuzz.artifacts --cases 4000 --seed 0

# The demo with three seeds of log and training, each in a lake of its own.
seeds: setup
	for seed in 1 2 3; do \
	  $(BIN)/newsrec simulate --out data/demo-$$seed --size demo --seed $$seed && \
	  NEWSREC_LAKE=$(CURDIR)/lake-seeds/$$seed MLFLOW_TRACKING_URI=sqlite:///$(CURDIR)/lake-seeds/$$seed.db \
	  $(BIN)/newsrec run --dataset simulated --data-root data/demo-$$seed --seed $$seed || exit 1; \
	done

# What the simulator shows over several seeds: the table of ml/simulator/expected.py.
calibrate: setup
	for preset in tabloid regional; do \
	  $(BIN)/python -m ml.simulator.calibrate --size tiny --seeds 11-40 --preset $$preset && \
	  $(BIN)/python -m ml.simulator.calibrate --size demo --seeds 11-22 --preset $$preset || exit 1; \
	done
	$(BIN)/python -m ml.simulator.calibrate --size small --seeds 11-14

# Every benchmark that needs nothing from outside, into one file: make bench [OUT=new.json] [SIZE=paper].
OUT ?= bench.json
SIZE ?= quick
bench: setup
	$(BIN)/newsrec bench all --size $(SIZE) --out $(OUT)

# Fails when a row of NEW is slower than in OLD beyond its spread: make bench-compare OLD=old.json NEW=new.json.
NEW ?= $(OUT)
bench-compare: setup
	$(BIN)/python -m ml.benchmarks.compare $(OLD) $(NEW)

ui: setup
	NEWSREC_DATASET=$${NEWSREC_DATASET:-simulated} NEWSREC_DATA_ROOT=$${NEWSREC_DATA_ROOT:-$(DEMO)} $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

# `make quickstart` sets up and runs the main job on the miniature world; `make test` sets up and passes the tests
# (JXSTILTS_DATA names a data_dir for those on real data).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUNS ?= runs
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --durations=60 --durations-min=3

.PHONY: quickstart test test-all lint setup

quickstart: $(VENV)/.package $(RUNS)/world/world.json
	$(BIN)/jxstilts run --config=configs/quickstart.py --config.data_dir=$(RUNS)/world --workdir=$(RUNS)/quickstart
	@echo
	@echo "Next: the same on real data (docs/data.md says which files):"
	@echo "  $(BIN)/jxstilts run --config=configs/real_small.py --config.data_dir=DATA --workdir=$(RUNS)/real_small"
	@echo "  $(BIN)/jxstilts plan --config=configs/paper.py        # the whole study with XLM-R large, and what it costs"

$(RUNS)/world/world.json: $(wildcard jxstilts/miniworld/*.py) | $(VENV)/.package
	$(BIN)/jxstilts world $(RUNS)/world --force

setup: $(VENV)/.installed

$(VENV)/.package: setup.py
	$(PYTHON) -m venv $(VENV)
	@echo "installing (a few minutes on a slow line) ..."
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed: $(VENV)/.package
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

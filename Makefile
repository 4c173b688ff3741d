# make quickstart | tutorials | test | check | clean. Needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := --numprocesses auto --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help quickstart tutorials test check format test-lowest clean

help:
	@echo "make quickstart   install, prove ViT-B/16 equal to torchvision's, train a small ViT on digits"
	@echo "make tutorials    execute all notebooks in tutorials/ again, in place"
	@echo "make test         install what the tests need and run them all"
	@echo "make check        format, lint and types"
	@echo "make format       let ruff rewrite what it can"
	@echo "make test-lowest  the tests with the oldest supported versions (a second environment, .venv-lowest)"
	@echo "make clean        remove environments, caches and runs/quickstart"

quickstart: $(VENV)/.installed
	$(BIN)/vitscratch quickstart

tutorials: $(VENV)/.installed-tutorials
	$(BIN)/python tutorials/execute.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(WORKERS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-lowest: $(VENV)/.installed-dev
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[test]'
	.venv-lowest/bin/python -m pytest $(WORKERS)

clean:
	rm -rf $(VENV) .venv-lowest build dist runs/quickstart .pytest_cache .mypy_cache .ruff_cache
	find vitscratch tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vitscratch needs Python >= 3.11, and '$(PYTHON)' is older or missing; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@rm -rf $(VENV)  # left over by a failure, or by a Python that is gone
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Each stamp is older than pyproject.toml exactly when something has to be installed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): up to 6 GB, mostly torch; a few minutes without a word ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-tutorials: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): up to 6 GB, mostly torch; a few minutes without a word ..."
	$(PIP) --editable '.[tutorials]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): up to 6 GB, mostly torch; a few minutes without a word ..."
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.installed-tutorials $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): up to 6 GB, mostly torch; a few minutes without a word ..."
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed-tutorials $(VENV)/.installed

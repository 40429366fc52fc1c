# Set-up is part of every target: `make run` and `make test` work in a fresh clone with Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= studies/speaker_program.yaml
JOBS ?= 3
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

.PHONY: help setup run test check bench lock clean

help:
	@echo "make run      set up, then run the bundled study (STUDY=path for another)"
	@echo "make test     set up, then run every test"
	@echo "make check    ruff, mypy --strict, import-linter, habits of the code"
	@echo "make bench    speed and memory, as ratios"
	@echo "make lock     resolve the dependencies again and export requirements.lock"

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "E2I needs Python 3.11, 3.12 or 3.13; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing dependencies into $(VENV) (about two minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@$(BIN)/e2i run $(STUDY)

test: setup
	@$(PYTEST)

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(PYTEST) tests/habits

bench: setup
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock: setup
	@$(BIN)/uv lock --upgrade
	@$(BIN)/uv export --frozen --no-emit-project --all-groups --format requirements-txt --no-header --no-annotate | awk '/^[^ ]/ {never = /sys_platform == .never./} !never' > requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

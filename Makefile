# Works with GNU Make 3.81 (macOS). Every target sets up what it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@bash scripts/setup.sh "$(VENV)" "$(PYTHON)"
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/latentwire demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m py_compile latentwire/*.py telepathy/*.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

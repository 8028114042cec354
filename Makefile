# Two commands do everything on a machine that has Python 3.11 (or newer) and make:
#
#   make demo     the environment, then photographs -> words -> photographs, and a page to look at
#   make test     the tests
#
# The environment is .venv/, made from the versions and hashes of requirements.lock and from nothing else.
# Every path below is relative, so the checkout may lie anywhere, under a name with spaces too.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo test test-fast lint format types imports check lock clean

# The first of these that runs and is new enough; `make PYTHON=/path/to/python env` overrides the choice.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)

BIN := .venv/bin
ENV := .venv/.synced
# Extra arguments for pytest: make test ARGS="-k plan -x"
ARGS ?=

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

env: $(ENV)  ## the environment in .venv/, once (the other targets call it)

demo: $(ENV)  ## photographs -> words -> photographs, on the bundled samples
	@rm -rf demo/tokens demo/pictures
	$(BIN)/spae tokenize examples/photos --out demo/tokens
	$(BIN)/spae detokenize demo/tokens --out demo/pictures
	$(BIN)/spae report demo/tokens

test: $(ENV)  ## all tests; ARGS="-k name" is handed to pytest
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(ENV)  ## the tests that need no browser, engine, asset or patience
	$(BIN)/python -m pytest -m "not (slow or engine or browser or assets or gpu)" $(ARGS)

lint: $(ENV)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(ENV)  ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(ENV)  ## mypy, strict for spae_core and schemas
	$(BIN)/mypy

imports: $(ENV)  ## which room may import which (.importlinter)
	$(BIN)/lint-imports

check: lint types imports test  ## everything a change must pass

# Not from $(ENV): that one is made from the lock, which a changed pyproject.toml has just made wrong.
lock: | $(BIN)/python  ## write requirements.lock anew from pyproject.toml
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --extra dev pyproject.toml -o requirements.lock

clean:  ## remove what the targets made, except .venv/
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ------------------------------------------------------------------------------------------

# A link to an interpreter that has gone counts as absent, and --clear then starts again.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: Python: expected 3.11 or newer, got none. Install it, or call make PYTHON=/path/to/python3.11 ..." >&2; \
		exit 2; \
	fi
	@"$(PYTHON)" -m venv --clear .venv || { \
		rm -rf .venv; \
		echo "error: python -m venv: expected an environment in .venv/, got the message above." \
			"Install the venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
		exit 2; \
	}

# uv comes from the lock too, hash and all: the lines of its entry are cut out for pip. Where uv cannot be had,
# pip alone makes the same environment, only slower. The build of this package may fetch nothing
# (--no-build-isolation), since its build backend is in the lock as well.
$(ENV): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the versions of requirements.lock into .venv/ (several gigabytes, once) ..."
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > .venv/uv.txt
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt \
		&& $(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock; then :; \
	else \
		echo "uv did not do it; pip goes on alone, which takes longer ..."; \
		$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Everything a developer runs. `make help` lists the targets; all but `install` need only what it installs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3
PYTEST_ARGS ?=
ROWS ?= 1000000
ROUNDS ?= 3
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-package dataops --no-emit-package dataops-client --custom-compile-command "make lock"
# make lets SIGINT and SIGTERM reach the recipe; the launchers below end all they started when make ends
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help install lock protos lint format types imports contract release-contract test test-long fuzz bench demo up ci clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 26

install: $(STAMP) ## make .venv with every dependency, each checked against its hash

# -qq hides pip's remarks about the machine's own configuration; errors still show
$(STAMP): requirements.lock pyproject.toml clients/python/pyproject.toml
	@[ -x $(BIN)/python ] || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d found, 3.11 or newer expected: make PYTHON=python3.x" % sys.version_info[:2])'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV) ...'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	@touch $(STAMP)

lock: ## choose dependency versions anew and write requirements.lock (hashes, no addresses)
	$(LOCK) -o requirements.lock requirements.in
	$(LOCK) -o docker/requirements.lock docker/requirements.in

protos: install ## make the Python stubs from protos/
	$(BIN)/python -m protos.tool generate

contract: install ## lint the protos, compare with the released contract and with the committed stubs
	$(BIN)/python -m protos.tool lint
	$(BIN)/python -m protos.tool breaking
	$(BIN)/python -m protos.tool check

release-contract: install ## make the present contract the released one; commit it alone
	$(BIN)/python -m protos.tool release

lint: install ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## ruff: mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## mypy --strict, tests included
	$(BIN)/mypy
	$(BIN)/mypy tests

imports: install ## the arrows between the packages (import-linter)
	$(BIN)/lint-imports

test: install ## the test suite, on servers it starts itself
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not long" $(PYTEST_ARGS)

test-long: install ## what does not fit in make test
	$(BIN)/python -m pytest -q -m long --timeout 3600 $(PYTEST_ARGS)

fuzz: install ## the property tests, with many more examples
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile fuzz --timeout 3600 $(PYTEST_ARGS)

bench: install ## ours beside psql's \copy and a bare echo, in one run; ROWS=1000000 ROUNDS=3; writes build/bench.json
	$(BIN)/python -m tests.benchmarks --rows $(ROWS) --rounds $(ROUNDS)

demo: install ## start everything, import and export 200,000 rows, explain what happens
	@$(BIN)/python -m examples.stack.demo --die-with-parent

up: install ## keep a stack running; PLATFORM_DSN=... uses your database; DATAOPS_* variables are settings
	@$(BIN)/python -m examples.stack.up --die-with-parent

ci: ## what decides whether a change may land, in a venv of its own
	.ci/run

clean: ## remove what was built here; .venv stays
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

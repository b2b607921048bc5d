# Every target sets up what it needs; the only thing to have is Python 3.11 or newer.
#
#   make run     watch a session repair a small project, then resume it in a new process
#   make test    the whole suite, compiled and pure
#   make cover   the suite once more, in pure Python and traced: which lines it reaches
#   make soak    the long size of the proofs, on two cores; ends with a line per proof
#   make bench   benchmarks: a table and JSON (BENCH="--peer PATH" compares with the real binary)
#   make lint    ruff, mypy, layering
#   make clean   everything built or cached

VENV ?= .venv
EXTRAS ?= test,sandbox
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	command -v $$python >/dev/null 2>&1 && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard _speedups/*.pyx)
PYTEST := -m "not soak"
PROOFS := -m "soak or proof or hypothesis" -n 2 --dist worksteal -v -o faulthandler_timeout=0
TWINS := tests/rollout tests/permissions tests/thread_store
BENCH ?=

.PHONY: run test cover soak bench lint clean install-test

run: $(VENV)/.installed
	@$(BIN)/python -P examples/run_demo.py $(DEMO)

test: $(VENV)/.installed-test
	@echo "--- compiled" && $(BIN)/python -P -m engine --version
	$(BIN)/python -m pytest $(PYTEST)
	@echo "--- pure Python"
	ENGINE_PURE_PYTHON=1 $(BIN)/python -m pytest $(PYTEST)

cover: $(VENV)/.installed-test
	@$(BIN)/coverage erase
	ENGINE_PURE_PYTHON=1 $(BIN)/coverage run -m pytest $(PYTEST)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

soak: $(VENV)/.installed-test
	ENGINE_TEST_PROFILE=soak $(BIN)/python -m pytest $(PROOFS)
	@echo "--- pure Python: what reads by the twins of the compiled modules; for the rest it would be the same run again"
	ENGINE_TEST_PROFILE=soak ENGINE_PURE_PYTHON=1 $(BIN)/python -m pytest $(PROOFS) $(TWINS)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/startup.py $(BENCH)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.*
	rm -f _speedups/*.c _speedups/*.so $(VENV)/.installed $(VENV)/.installed-test
	find engine _speedups tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed, and none was found; try make PYTHON=/path/to/python" >&2; exit 1; fi
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module of $(PYTHON) does not work here (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/python
	@echo "installing the package (this takes a minute the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[sandbox]'
	@touch $@

$(VENV)/.installed-test: $(SOURCES) | $(VENV)/bin/python
	@echo "installing the package and what its tests need"
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.installed

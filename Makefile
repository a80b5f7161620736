# Thin: each target makes .venv when there is none, then calls one tool.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
# `make TORCH=cpu` takes PyTorch from its own index, without the CUDA libraries
# that the wheels on PyPI bring (4 GB on disk); it counts when .venv is made.
TORCH ?=
# Pages and tests run on one thread per process, so that results repeat.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help book test check test-changed portable matrix page update serve bench lock clean

help:
	@echo "make book               build the HTML book (makes .venv first)"
	@echo "make test               run every check on package, pages and site"
	@echo "make check PAGE=book/...  check one page, in a minute"
	@echo "make test-changed       check what your changes touch"
	@echo "make portable           compare the pages' outputs under older instructions"
	@echo "make matrix             execute the pages with oldest and newest libraries"
	@echo "make page PAGE=book/... execute one page and store its outputs"
	@echo "make update             execute every page whose code changed"
	@echo "make serve              build, then serve on http://localhost:8000"
	@echo "make bench              run the benchmarks"
	@echo "make lock               re-pin requirements.txt from pyproject.toml"

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; $(PYTHON) is" \
	  "$$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@{ test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION); } \
	  && $(BIN)/uv pip install -q $(if $(TORCH),--torch-backend $(TORCH)) -r requirements.txt || { \
	  echo "make: the packages of requirements.txt could not be installed" \
	  "(is there a network?). Nothing else was changed." >&2; exit 1; }
	@touch $@

book: .venv/installed
	@$(BIN)/python tools/pages.py update
	@$(BIN)/python tools/build.py

test: .venv/installed
	@$(BIN)/python tools/check.py

portable: .venv/installed
	@$(BIN)/python tools/portable.py

matrix: .venv/installed
	@$(BIN)/python tools/matrix.py $(SETS)

check: .venv/installed
	@$(BIN)/python tools/check_page.py "$(PAGE)"

test-changed: .venv/installed
	@$(BIN)/python tools/changed.py

page: .venv/installed
	@$(BIN)/python tools/pages.py run "$(PAGE)"

update: .venv/installed
	@$(BIN)/python tools/pages.py update $(if $(FORCE),--force)

serve: book
	@echo "http://localhost:8000 (stop with Ctrl-C)"
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

# An environment of its own: the book's stays as it is tested.
.venv/bench/installed: .venv/installed
	@$(BIN)/uv venv -q --clear -p $(BIN)/python .venv/bench
	@$(BIN)/uv pip install -q -p .venv/bench/bin/python -r requirements.txt -e '.[bench]'
	@touch $@

bench: .venv/bench/installed
	@.venv/bench/bin/python -m pytest -q -p no:cacheprovider benchmarks \
	  --benchmark-sort=min --benchmark-columns=min,median,rounds

lock: .venv/installed
	@$(BIN)/python tools/lock.py

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache

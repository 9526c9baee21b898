# make demo: set up and run the main job on generated posts; make test: set up and check every behaviour;
# make test-all: also what breaks things for long; make bench: measure speed, into docs/performance.md;
# make dist: wheel and sdist, checked and tried in clean environments; make docs: the site, in site/;
# make notebooks: runs those of examples/ and keeps what they gave.
unexport PYTHONDONTWRITEBYTECODE  # packages are installed without bytecode: each import writes its own, once
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint format bench dist docs notebooks clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --upgrade pip hatchling editables setuptools wheel
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py demo/

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow" $(PYTEST)  # a file's fixtures are made once

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --hypothesis-profile thorough $(PYTEST)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -W ignore benchmarks/bench.py docs/performance.md

# What a release and the documentation take, and no test.
TOOLS := .venv-tools

$(TOOLS)/.ready: pyproject.toml docs/constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --no-compile --upgrade 'pip>=25.1'  # knows groups
	$(TOOLS)/bin/pip install --quiet --no-compile --constraint docs/constraints.txt --group docs --group release
	touch $(TOOLS)/.ready

dist: $(TOOLS)/.ready
	rm -rf dist
	$(TOOLS)/bin/python -m build
	$(TOOLS)/bin/twine check --strict dist/*
	$(PYTHON) tests/clean_install.py dist/

docs: $(TOOLS)/.ready
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/python -W ignore -m mkdocs build --strict  # jieba warns of its patterns
	$(TOOLS)/bin/python docs/check_site.py site/

notebooks: $(READY)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --constraint docs/constraints.txt ipykernel nbclient
	$(BIN)/python docs/notebooks.py

clean:
	rm -rf demo dist build site .pytest_cache .mypy_cache .ruff_cache

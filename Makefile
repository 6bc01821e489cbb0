# Everything sets itself up in .venv with ordinary pip; a second call finds it done.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
TIMM_SDIST = .cache/timm

.PHONY: demo check test test-slow test-wheel test-oldest mutations fuzz torture test-timm bench bench-full bench-gpu docs generate clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "seewide needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing seewide and what it needs (PyTorch is several GB the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)  ## train, fuse, export and explain a large-kernel network; see demo/report.html
	$(BIN)/python examples/demo.py

check: $(READY)  ## style, lint, types and language
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_language.py tests/test_architecture.py

test: $(READY)  ## the tests (20 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(READY)  ## also those that take longer
	$(BIN)/python -m pytest -m 'not gpu' -n 2 --dist loadfile

fuzz: $(READY)  ## 10,000 random calls of the operators against their definitions (20 minutes)
	PYTHONPATH=. $(BIN)/python tests/ops/fuzz.py
	$(BIN)/python -m pytest -m slow tests/ops/test_pointwise_product.py

test-wheel: $(READY)  ## the wheel in a new environment, without extras (PYTHON=python3.13: another Python)
	$(BIN)/python tests/clean_environment.py wheel --python $(PYTHON)

test-oldest: $(READY)  ## the oldest torch and timm allowed, with the tests of the core
	$(BIN)/python tests/clean_environment.py oldest --python $(PYTHON)

mutations: $(READY)  ## break fifteen behaviors, one at a time; the tests must notice (30 minutes)
	$(BIN)/python tests/mutations.py

torture: $(READY)  ## interrupt training 100 times, flip 1,000 bits of a run (30 minutes; MINUTES=, SEED=)
	PYTHONPATH=. $(BIN)/python tests/train/torture.py --minutes $(or $(MINUTES),60) --seed $(or $(SEED),0)
	PYTHONPATH=. $(BIN)/python tests/train/flips.py --minutes $(or $(MINUTES),60) --seed $(or $(SEED),0)

test-timm: $(READY) $(TIMM_SDIST)  ## timm's own model tests on our networks (PATTERN='unireplknet_*')
	SEEWIDE_TIMM_PATTERN='$(or $(PATTERN),*)' PYTHONPATH=tests $(BIN)/python -m pytest -q -W ignore -p timm_plugin \
	  --rootdir=$(TIMM_SDIST) -c $(TIMM_SDIST)/pyproject.toml $(TIMM_SDIST)/tests/test_models.py \
	  -k "$$(SEEWIDE_TIMM_PATTERN='$(or $(PATTERN),*)' PYTHONPATH=tests $(BIN)/python -m timm_plugin)"

$(TIMM_SDIST): $(READY)
	mkdir -p .cache/sdist
	$(BIN)/python -m pip install --quiet pdm-backend
	$(BIN)/python -m pip download --quiet --no-deps --no-binary timm --no-build-isolation --dest .cache/sdist \
	  timm==$$($(BIN)/python -c 'import timm; print(timm.__version__)')
	mkdir -p $@ && tar xzf .cache/sdist/timm-*.tar.gz --strip-components=1 -C $@

bench: $(READY)  ## operators and networks beside their baselines, a few cases (2 minutes)
	$(BIN)/python -m benchmarks ops --quick
	$(BIN)/python -m benchmarks models --quick

bench-full: $(READY)  ## all of it (an hour); writes benchmarks/results and docs/figures
	$(BIN)/python -m benchmarks ops
	$(BIN)/python -m benchmarks models
	$(BIN)/python -m benchmarks targets
	$(BIN)/python -m benchmarks sweep

bench-gpu: $(READY)  ## every figure of the GPU kernels, on a CUDA device, in ten minutes; writes benchmarks/results
	$(BIN)/python -m benchmarks.gpu

docs: $(READY)  ## the documentation as a web site, in site/
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

generate: $(READY)  ## the generated tables and figures in docs/
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .cache build dist *.egg-info

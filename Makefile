# `make demo` and `make test` set up everything they need; both are safe to run twice.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VENV_JAX ?= .venv-jax
VENV_LOWEST ?= .venv-lowest
BIN := $(VENV)/bin
BIN_JAX := $(VENV_JAX)/bin
BIN_LOWEST := $(VENV_LOWEST)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Without an NVIDIA driver, PyTorch's index of CPU builds saves gigabytes of CUDA packages.
# An unreachable index costs a warning; pip then takes the build that it finds elsewhere.
TORCH_FROM := $(if $(shell command -v nvidia-smi),,--retries 1 --extra-index-url https://download.pytorch.org/whl/cpu)

# What the examples in JavaScript need.
NPM := examples/node/node_modules/.stamp examples/web/node_modules/.stamp

.PHONY: demo check test test-jax test-lowest lint docs bench clean

demo: $(VENV)/.runtime
	$(BIN)/python -m nrp_onnx demo -o demo

# Two processes, a file of tests in one of them: most tests keep one core busy. BLAS has one thread and
# OpenMP's do not spin: where more threads run than there are cores, they wait for each other (a test of
# 5 s took 27).
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile

# Before each commit.
check: lint
	$(PYTEST) -m 'not (slow or browser or cluster or tensorflow)'

# All of it.
test: lint test-jax $(NPM)
	$(PYTEST)

# In an environment of its own: jax2onnx brings the plain onnxruntime, which overwrites onnxruntime-gpu.
test-jax: $(VENV_JAX)/.dev
	$(BIN_JAX)/python -m pytest tests/jax

# With the lowest versions that pyproject.toml allows. PyTorch is the one of constraints.txt, which is
# taken out of what uv resolves: it would take a build with CUDA.
test-lowest: $(VENV_LOWEST)/.lowest
	$(BIN_LOWEST)/python -m pytest tests/lowest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The page docs/cli.md, from the help of the commands.
docs: $(VENV)/.runtime
	$(BIN)/python docs/make_cli_reference.py

# On a machine that does nothing else: the small pieces, then whole extractions beside what limits them.
bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks/test_pieces.py --benchmark-only
	$(BIN)/python benchmarks/extraction.py --scale

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-deps $(TORCH_FROM) -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[torch,hdf5]'
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install -q -c constraints.txt -e '.[dev,keras]'
	touch $@

# The scripts of these packages fetch builds for CUDA, which is not used.
examples/%/node_modules/.stamp: examples/%/package.json examples/%/package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --prefix examples/$*
	touch $@

$(VENV_JAX)/.dev: pyproject.toml constraints.txt constraints-jax.txt
	test -x $(BIN_JAX)/python || $(PYTHON) -m venv $(VENV_JAX)
	$(BIN_JAX)/python -m pip --disable-pip-version-check install -q --no-deps $(TORCH_FROM) -c constraints.txt torch
	$(BIN_JAX)/python -m pip --disable-pip-version-check install -q -c constraints.txt -c constraints-jax.txt -e '.[jax]' pytest
	touch $@

$(VENV_LOWEST)/.lowest: pyproject.toml constraints.txt
	test -x $(BIN_LOWEST)/python || $(PYTHON) -m venv $(VENV_LOWEST)
	$(BIN_LOWEST)/python -m pip --disable-pip-version-check install -q --no-deps $(TORCH_FROM) -c constraints.txt torch
	$(BIN_LOWEST)/python -m pip --disable-pip-version-check install -q uv
	echo "torch; python_version < '3'" > $(VENV_LOWEST)/no-torch.txt
	$(BIN_LOWEST)/uv pip compile -q --resolution lowest-direct --python $(BIN_LOWEST)/python \
		--override $(VENV_LOWEST)/no-torch.txt --extra torch --extra hdf5 pyproject.toml -o $(VENV_LOWEST)/lowest.txt
	$(BIN_LOWEST)/uv pip install -q --python $(BIN_LOWEST)/python -r $(VENV_LOWEST)/lowest.txt
	$(BIN_LOWEST)/python -m pip --disable-pip-version-check install -q -e '.[torch,hdf5]' pytest
	touch $@

clean:
	rm -rf $(VENV) $(VENV_JAX) $(VENV_LOWEST) build dist demo *.egg-info examples/*/node_modules

# `make lenet` and `make test` need make, g++ and python3 with its venv module and headers; the rest is installed into .venv.
# ARGS="..." is handed to train_lenet.py, to cifar_train.py, to pytest or to the benchmark.

PYTHON ?= python3
VENV   ?= .venv
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check
# A path, rather than a hook: beside a checkout that is called convlab, Python would take that folder for the package.
EDITABLE := --no-build-isolation --config-settings editable_mode=compat -e

CXX_FILES = $(sort $(shell find csrc convlab tests examples -name "*.cpp" -o -name "*.h" -o -name "*.cu" -o -name "*.cuh"))

.PHONY: docs help lenet cifar lint format test test-long test-versions sanitize bench mutants kernel-notes gpu-test gpu-report build nvcc clean
.NOTPARALLEL:

help:
	@echo "make lenet      train LeNet-5 on handwritten digits through convlab's kernels"
	@echo "make cifar      train a larger network on images drawn from a seed; ARGS=\"--data cifar10\" on CIFAR-10"
	@echo "make test       the tests; without nvcc on the machine, one from PyPI compiles the CUDA kernels"
	@echo "make test-long  what takes minutes more: thirty times as many random problems"
	@echo "make test-versions  the core of the tests on the oldest torch and on the newest; downloads and keeps both, 12 GB"
	@echo "make lint       what ruff, clang-format, mypy, codespell and import-linter find, and links that lead nowhere"
	@echo "make format     lay all files out: ruff and clang-format"
	@echo "make sanitize   the CPU kernels' tests under AddressSanitizer and UBSan, for each instruction set of this machine"
	@echo "make bench      time the kernels beside torch's on this machine"
	@echo "make mutants    break the kernels in one place at a time; a test must notice each"
	@echo "make kernel-notes  what each kernel asks of memory, counted by the simulator; ARGS=--write puts it into csrc/kernels"
	@echo "make docs       the pages of docs/, into build/docs"
	@echo "make gpu-test   the tests on this machine's GPU, with PYTHON=$(PYTHON) as it is: nothing is installed"
	@echo "make gpu-report all that a GPU can tell: built, tested, sanitized, measured, counted; STEP=... for parts, DRY=1 without a GPU"
	@echo "make build      compile what changed"
	@echo "make clean      remove what was built; the environment $(VENV) stays"

lenet: build
	$(VENV_PYTHON) train_lenet.py $(ARGS)

cifar: build
	$(VENV_PYTHON) cifar_train.py --data builtin --plots runs/cifar/pictures $(ARGS)

# A worker for each core, four at most, each with one thread.
test: $(VENV)/.torch nvcc build
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 $(ARGS)

test-long: $(VENV)/.torch nvcc build
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 -m long $(ARGS)

test-versions: build
	@$(VENV_PYTHON) -m tools.torch_versions $(ARGS)

# All of them, whatever the first ones say.
lint: $(VENV)/.lint
	@export PATH="$(abspath $(VENV))/bin:$$PATH"; failed=0; \
	for check in "ruff check" "ruff format --check" "clang-format --dry-run -Werror $(CXX_FILES)" \
	    mypy codespell "lint-imports --no-logo" "python -m tools.links"; do \
	  $$check || { echo "make lint: $${check%% *} fails"; failed=1; }; \
	done; exit $$failed

format: $(VENV)/.lint
	@export PATH="$(abspath $(VENV))/bin:$$PATH"; ruff check --quiet --fix-only && ruff format --quiet && clang-format -i $(CXX_FILES)

sanitize: build
	@$(VENV_PYTHON) -m tools.sanitize $(ARGS)

bench: build
	$(VENV_PYTHON) -m convlab.bench cpu $(ARGS)

mutants: build
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m tools.mutants $(ARGS)

kernel-notes: build
	@$(VENV_PYTHON) -m tools.kernel_notes $(ARGS)

docs: build
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict $(ARGS)

gpu-test:
	@$(PYTHON) -m tools.gpu_test $(ARGS)

# STEP, DRY and BUDGET reach the script through the environment.
gpu-report:
	@$(PYTHON) -m tools.gpu_report $(ARGS)

build: $(VENV)/.ready
	@$(VENV_PYTHON) setup.py -q build_ext --inplace

nvcc: $(VENV)/.torch
	@$(VENV_PYTHON) -m tools.get_nvcc

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis convlab/*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The environment, in two steps: what the build needs; then convlab itself, editable, with what training and tests need.
# .installing exists while pip works, so that what an interrupted pip left behind is made anew instead of built upon.
$(VENV)/.torch: pyproject.toml
	@$(PYTHON) convlab/toolchain.py
	@if [ -e $(VENV)/.installing ]; then echo "convlab: $(VENV) was left half made; making it anew"; rm -rf $(VENV); fi
	@echo "convlab: making $(VENV); torch is a download of gigabytes where it comes with CUDA"
	$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/.installing
	$(PIP) torch torchvision ninja pybind11 setuptools wheel
	@mv $(VENV)/.installing $@

$(VENV)/.ready: $(VENV)/.torch
	@$(VENV_PYTHON) setup.py -q build_ext --inplace
	@mv $(VENV)/.torch $(VENV)/.installing
	$(PIP) $(EDITABLE) '.[train,test]'
	@mv $(VENV)/.installing $(VENV)/.torch
	@touch $@

# The linters, at the versions that pyproject.toml pins: what they find must not change with the day.
$(VENV)/.lint: $(VENV)/.ready
	$(PIP) $(EDITABLE) '.[lint]'
	@touch $@

# From a fresh clone: `make train` or `make test`. Needs Python 3.10+, a C++17 compiler, make, pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find csrc cmake -type f) CMakeLists.txt setup.py pyproject.toml scripts/build_backend.py
CMAKE := $(BIN)/cmake
NINJA = -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja

# Tests of the operators that do not look at the CPU's own ways.
CONTRACT := $(addprefix tests/test_,$(addsuffix .py,embed_linear_tanh cross_entropy \
    linear_cross_entropy mlp_cross_entropy errors layouts graph derivatives compose))

.PHONY: train test package lint format sanitize emulate emulate-ops cuda-tests ptxas cross bench clean

train: $(VENV)/.built
	$(BIN)/pymlp train

test: $(VENV)/.tools
	$(BIN)/python -m pytest

# The source distribution, a wheel from it, and that wheel installed elsewhere: minutes of compiling.
package: $(VENV)/.tools
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc tests/cpp -name '*.h' -o -name '*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests/cpp -name '*.h' -o -name '*.cpp' | xargs $(BIN)/clang-format -i

# The torch-free floor's own tests under the address and undefined-behaviour sanitizers.
sanitize: $(VENV)/.installed
	$(CMAKE) -S . -B build/sanitize $(NINJA) -DCMAKE_BUILD_TYPE=Debug -DPYMLP_TESTS=ON \
	    -DPYMLP_SANITIZE=address,undefined
	$(CMAKE) --build build/sanitize --target pymlp_tests
	build/sanitize/pymlp_tests

# The CUDA kernels on the host: threads as fibres in shuffled order, under the sanitizers. Needs no
# CUDA.
emulate: $(VENV)/.installed
	$(CMAKE) -S . -B build/sanitize $(NINJA) -DCMAKE_BUILD_TYPE=Debug -DPYMLP_TESTS=ON \
	    -DPYMLP_SANITIZE=address,undefined
	$(CMAKE) --build build/sanitize --target pymlp_emulation
	build/sanitize/tests/cpp/cuda/pymlp_emulation

# The same tests compiled by nvcc, and run where there is a GPU.
cuda-tests: $(VENV)/.installed
	$(CMAKE) -S . -B build/cuda $(NINJA) -DCMAKE_BUILD_TYPE=Release -DPYMLP_TESTS=ON -DPYMLP_CUDA=ON
	$(CMAKE) --build build/cuda --target pymlp_cuda_tests
	if nvidia-smi -L; then build/cuda/tests/cpp/cuda/pymlp_cuda_tests; \
	    else echo "compiled; not run: there is no GPU"; fi

# Registers, stack, shared memory and spills of the hot kernels, as docs/cuda.md has them.
ptxas:
	$(PYTHON) scripts/ptxas_report.py

# The same tests for arm64: Debian packages g++-aarch64-linux-gnu and qemu-user.
cross: $(VENV)/.installed
	$(CMAKE) -S . -B build/cross $(NINJA) -DCMAKE_BUILD_TYPE=Release -DPYMLP_TESTS=ON \
	    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	$(CMAKE) --build build/cross
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/cross/pymlp_tests

# The operators' contract and the engine of devices over emulated CUDA kernels: all that a GPU runs of
# csrc/ops and Python, but for streams and graphs. The libraries go to a package of their own.
EMULATED := build/emulated
emulate-ops: $(VENV)/.tools
	$(CMAKE) -S . -B build/emulate-ops $(NINJA) -DCMAKE_BUILD_TYPE=Release -DPYMLP_EMULATE=ON \
	    -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	    -Dpybind11_DIR=$$($(BIN)/python -c "import pybind11; print(pybind11.get_cmake_dir())") \
	    -DPYMLP_TORCH=$$($(BIN)/python -c "import torch; print(torch.__path__[0])")
	$(CMAKE) --build build/emulate-ops
	rm -rf $(EMULATED) && mkdir -p $(EMULATED)/pymlp
	ln -s $(abspath pymlp)/*.py $(abspath pymlp)/*.txt $(abspath pymlp)/commands $(abspath pymlp)/ngram \
	    $(EMULATED)/pymlp/
	$(CMAKE) --install build/emulate-ops --prefix $(EMULATED)/pymlp
	PYTHONPATH=$(EMULATED) $(BIN)/pytest -q $(CONTRACT) tests/test_device_*.py \
	    -k "not avx2 and not baseline"

bench: $(VENV)/.built
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build pymlp/*.so *.egg-info

# --- set-up: own virtual environment, pinned tools, build ---------------------------------------
# Each step says in a line what it does: the first time takes minutes.
PIP = $(BIN)/python -m pip --disable-pip-version-check -qq

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
	    "pymlp: needs Python 3.10 or newer, got " + sys.version.split()[0] + "; say make PYTHON=...")'
	@echo "pymlp: making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# To build and to run.
$(VENV)/.installed: requirements.txt | $(BIN)/pip
	@echo "pymlp: installing torch and what else it builds with and runs with (requirements.txt)"
	@$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	@echo "pymlp: compiling the kernels; the first time takes about two minutes"
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

# To test and to lint, besides.
$(VENV)/.tools: requirements-dev.txt $(VENV)/.built
	@echo "pymlp: installing test runner and linters (requirements-dev.txt)"
	@$(PIP) install -r requirements-dev.txt
	@touch $@

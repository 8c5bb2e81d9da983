#!/usr/bin/env bash
# Shows the CUDA kernels right and fast on this machine, and writes benchmarks/results/<gpu>.json, and
# <gpu>-training.json with the engine's figures.
#
#   scripts/gpu_check.sh            needs a GPU, nvcc, Python 3.11+ with a torch of CUDA, cmake, pybind11
#   scripts/gpu_check.sh --dry-run  the same without a launch, on any machine with nvcc: GPU tests and
#                                   benchmarks run on the CPU, nothing is written to benchmarks/
#
# PYTHON names the interpreter (default python3). No network; nothing is installed: the package is
# built into build/gpu_check. Under ten minutes: a step is ended after its own seconds, and on a GPU
# when the ten minutes are over. Every step has its log, one that fails does not keep the others from
# running, and the exit code is 1 if one did.
set -uo pipefail
cd "$(dirname "$0")/.."

dry_run=""
case "${1-}" in
    "") ;;
    --dry-run) dry_run=yes ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

python="${PYTHON:-python3}"
build="$PWD/build/gpu_check"
package="$build/package" # what is on PYTHONPATH
export PATH="$PATH:/usr/local/cuda/bin"
export CUBLAS_WORKSPACE_CONFIG=:4096:8
all_seconds=590
failed=()
skipped=()

# step NAME SECONDS COMMAND...: run it, on a GPU for so long at most, with its output in a log.
step() {
    local name="$1" limit="$2" start="$SECONDS" log="$build/$1.log" left=$((all_seconds - SECONDS))
    shift 2
    if [ -n "$dry_run" ]; then
        limit=3600 # a small machine may have to compile for long
    elif [ "$left" -lt 1 ]; then
        printf '%-24s FAILED          no time left\n' "$name"
        failed+=("$name")
        return 1
    elif [ "$left" -lt "$limit" ]; then
        limit="$left"
    fi
    if timeout -k 5 "$limit" "$@" > "$log" 2>&1; then
        printf '%-24s ok      %4d s  %s\n' "$name" $((SECONDS - start)) "$(tail -n 1 "$log" | cut -c 1-120)"
    else
        printf '%-24s FAILED  %4d s  %s\n' "$name" $((SECONDS - start)) "$log"
        tail -n 20 "$log" | sed 's/^/    /'
        failed+=("$name")
        return 1
    fi
}

skip() {
    printf '%-24s skipped         %s\n' "$1" "$2"
    skipped+=("$1")
}

# Programs come from PATH or, as PyPI packages, from the interpreter's own environment.
tool() {
    command -v "$1" || "$python" -c "import $1, pathlib
print(pathlib.Path($1.__file__).parent / 'data/bin/$1')" 2> /dev/null
}

has() { "$python" -c "import $1" 2> /dev/null; }

fact() { "$python" -c "$1" 2> /dev/null; }

# --- what there is --------------------------------------------------------------------------------
mkdir -p "$build"
"$python" -P -c "" 2> /dev/null || { echo "gpu_check: $python is not Python 3.11 or newer" >&2; exit 1; }
for need in torch numpy pybind11; do
    has "$need" || { echo "gpu_check: $python has no $need" >&2; exit 1; }
done
command -v nvcc > /dev/null || { echo "gpu_check: no nvcc on PATH or in /usr/local/cuda" >&2; exit 1; }
cmake="$(tool cmake)" || { echo "gpu_check: no cmake" >&2; exit 1; }

gpu="none"
architectures="${PYMLP_CUDA_ARCHITECTURES:-80;90}"
if [ -z "$dry_run" ]; then
    gpu="$(fact 'import torch; print(torch.cuda.get_device_name())')" ||
        { echo "gpu_check: torch sees no GPU; --dry-run needs none" >&2; exit 1; }
    # For this GPU alone: the others are compiled in CI.
    architectures="$(fact 'import torch; print("%d%d" % torch.cuda.get_device_capability())')"
fi
echo "gpu $gpu; torch $(fact 'import torch; print(torch.__version__)'); $(nvcc --version | tail -n 1);" \
    "commit $(git rev-parse --short HEAD 2> /dev/null || echo unknown)"

# --- build ----------------------------------------------------------------------------------------
generator=()
ninja="$(tool ninja)" && generator=(-G Ninja "-DCMAKE_MAKE_PROGRAM=$ninja")
step configure 120 "$cmake" -S . -B "$build/cmake" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DPython_EXECUTABLE="$(fact 'import sys; print(sys.executable)')" \
    -Dpybind11_DIR="$(fact 'import pybind11; print(pybind11.get_cmake_dir())')" \
    -DPYMLP_TORCH="$(fact 'import torch; print(torch.__path__[0])')" \
    -DPYMLP_TESTS=ON -DPYMLP_CUDA=ON -DPYMLP_CUDA_ARCHITECTURES="$architectures"
step build 270 "$cmake" --build "$build/cmake" --parallel
step build-cuda-tests 200 "$cmake" --build "$build/cmake" --parallel --target pymlp_cuda_tests
rm -rf "$package" && mkdir -p "$package/pymlp"
ln -s "$PWD"/pymlp/*.py "$PWD"/pymlp/*.txt "$PWD"/pymlp/{commands,ngram} "$package/pymlp/"
ln -s "$PWD/benchmarks" "$package/pymlp/benchmarks"
step install 60 "$cmake" --install "$build/cmake" --prefix "$package/pymlp"
export PYTHONPATH="$package"

step import 60 "$python" -P -c "
import pymlp._library as library
assert library.CUDA_ARCHITECTURES, 'built without CUDA kernels'
print('kernels for', *library.CUDA_ARCHITECTURES)"

# --- kernels without torch ------------------------------------------------------------------------
cuda_tests="$build/cmake/tests/cpp/cuda/pymlp_cuda_tests"
step cpu-kernels 120 "$build/cmake/pymlp_tests"
if [ -n "$dry_run" ]; then
    skip cuda-kernels "no launches in a dry run; $(basename "$cuda_tests") is built"
elif command -v compute-sanitizer > /dev/null; then
    step cuda-kernels 90 "$cuda_tests"
    step memcheck 150 compute-sanitizer --tool memcheck --error-exitcode 1 "$cuda_tests"
    step racecheck 150 compute-sanitizer --tool racecheck --error-exitcode 1 "$cuda_tests"
else
    step cuda-kernels 90 "$cuda_tests"
    skip sanitizer "no compute-sanitizer on PATH or in /usr/local/cuda/bin"
fi

# --- the operators' contract ----------------------------------------------------------------------
# These need pytest alone; what needs click, rich or safetensors is not about GPUs.
contract=(tests/test_{cuda,embed_linear_tanh,cross_entropy,linear_cross_entropy,mlp_cross_entropy}.py
    tests/test_{errors,layouts,graph,derivatives,determinism,transforms,compose,large_batch,compile}.py)
if has pytest; then
    [ -n "$dry_run" ] && export PYMLP_TEST_GPU=cpu
    step gpu-tests 240 "$python" -P -m pytest -q -p no:cacheprovider -m gpu "${contract[@]}"
    if has safetensors; then
        step gpu-engine-tests 180 "$python" -P -m pytest -q -p no:cacheprovider -m gpu \
            tests/test_device_*.py
    else
        skip gpu-engine-tests "$python has no safetensors"
    fi
else
    skip gpu-tests "$python has no pytest"
fi

# --- benchmarks -----------------------------------------------------------------------------------
if [ -n "$dry_run" ]; then
    step benchmarks 300 "$python" -P -m pymlp.benchmarks ops step --quick --json --repeats 1 \
        --batch-sizes 32 --modes full --providers eager pymlp --out "$build/dry_run.json"
else
    results="benchmarks/results/$(echo "$gpu" | tr 'A-Z ' 'a-z-').json"
    training="${results%.json}-training.json"
    step training-benchmarks 150 "$python" -P -m pymlp.benchmarks run many --device cuda --json \
        --batch-sizes 32 4096 65536 --out "$training" && echo "wrote $training"
    step benchmarks 300 "$python" -P -m pymlp.benchmarks words step ops --device cuda --json \
        --batch-sizes 32 65536 --modes forward full --out "$results" && echo "wrote $results"
fi

printf '%d s; failed: %s; skipped: %s\n' "$SECONDS" "${failed[*]:-nothing}" "${skipped[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]

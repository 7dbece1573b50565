#!/bin/bash
# What a GPU machine is asked, in one go and within eight minutes: the tests marked `gpu`, the kernel for
# pages compiled, decode and prefill rates. Everything goes to one file.
#
#   bash lab/bench/gpu.sh wheels        # here: what the tests need beside torch, for Python 3.12, to build/gpu-wheels
#   bash lab/bench/gpu.sh run [FILE]    # there: needs torch and transformers, and no network
#   bash lab/bench/gpu.sh dry [FILE]    # the same on a CPU with a tiny model: is the script itself right?
#
# On a lent machine: carry build/gpu-wheels along, run `bash lab/bench/gpu.sh run "$OUT/gpu.md"`.
set -u
cd "$(dirname "$0")/../.."
wheels=build/gpu-wheels
needed=(accelerate annotated-types hypothesis iniconfig packaging pluggy psutil pydantic pydantic-core pygments
  pytest pytest-asyncio pytest-timeout sortedcontainers structlog typing-extensions typing-inspection)

fetch() {
  python3 -m pip download --quiet --dest "$wheels" --no-deps --only-binary=:all: --python-version 312 \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 -c constraints.txt "${needed[@]}"
}

install() {
  [ -d "$wheels" ] || return 0
  python3 -m pip install --quiet --no-index --no-deps --target build/gpu-packages "$wheels"/*.whl
  export PYTHONPATH="$PWD/build/gpu-packages:${PYTHONPATH:-}"
}

report() {
  echo "# $(date -u +%FT%TZ), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  python3 -c 'import sys, torch, transformers; print(sys.version.split()[0], torch.__version__, transformers.__version__)'
  python3 -c 'import triton; print("triton", triton.__version__)' 2>/dev/null || echo "no triton"
  echo; echo "## Tests"
  timeout 200 python3 -m pytest -q -m gpu -p no:cacheprovider --tb=short tests/gpu tests/server/engine/attention 2>&1 | tail -60
  timeout 60 python3 -m pytest -q -p no:cacheprovider --tb=short tests/server/engine/attention/test_paged_decode.py 2>&1 | tail -30
  echo; echo "## Rates"
  timeout 200 python3 -m lab.bench.gpu "$@" 2>&1 | grep -v '^20[0-9-]* .*info'
}

export PYTHONPATH="$PWD:$PWD/clients/python:${PYTHONPATH:-}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
case "${1:-}" in
  wheels) fetch ;;
  run) install; report > >(tee "${2:-build/gpu.md}") ;;
  dry) report --size tiny --device cpu --profiles 0 4 --requests 1 4 --new-tokens 8 --prompt-tokens 32 \
    > >(tee "${2:-build/gpu.md}") ;;
  *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
wait

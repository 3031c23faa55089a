# A worker: torch and the shared library, and nothing of the control plane's that it does not load.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/trunkline
ENV PATH=/opt/trunkline/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
# Where torch's wheels for another device are; without it pip's own choice, which on Linux serves CUDA and CPU.
ARG TORCH_INDEX=""
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY LICENSE MANIFEST.in README.md pyproject.toml setup.py ./
COPY backend backend
COPY client_agent client_agent
COPY migrations migrations
COPY splitlearn splitlearn
COPY worker worker
RUN pip install --constraint constraints.txt ./client_agent '.[worker]' && pip uninstall --yes pip

FROM python:3.11.13-slim-bookworm
RUN groupadd --gid 10001 trunkline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trunkline \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/trunkline-worker
COPY --from=build /opt/trunkline /opt/trunkline
# GOMP_SPINCOUNT, KMP_BLOCKTIME: splitlearn/party_environment.py says why.
ENV PATH=/opt/trunkline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GOMP_SPINCOUNT=30000 KMP_BLOCKTIME=1
USER 10001:10001
VOLUME /var/lib/trunkline-worker
CMD ["trunkline-worker"]

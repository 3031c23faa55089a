# The control plane: migrations, API and gateway are one image with three commands. It has no torch.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/trunkline
ENV PATH=/opt/trunkline/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Extras of pyproject.toml; "server s3" keeps artifacts in a bucket.
ARG EXTRAS="server"
COPY pyproject.toml constraints.txt ./
COPY client_agent/pyproject.toml client_agent/
COPY docker/control_plane_requirements.py docker/
RUN python docker/control_plane_requirements.py ${EXTRAS} > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt
COPY LICENSE MANIFEST.in README.md setup.py ./
COPY backend backend
COPY client_agent client_agent
COPY migrations migrations
COPY splitlearn splitlearn
COPY worker worker
# Without what the two distributions ask for: that was chosen above.
RUN pip install --no-deps ./client_agent . && pip uninstall --yes pip setuptools

FROM python:3.11.13-slim-bookworm
RUN groupadd --gid 10001 trunkline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin trunkline \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/trunkline
COPY --from=build /opt/trunkline /opt/trunkline
ENV PATH=/opt/trunkline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /var/lib/trunkline
EXPOSE 8470 8471
CMD ["trunkline", "api"]

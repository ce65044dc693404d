# One image in which supervisord, PID 1, keeps nginx (port 8999) and Gunicorn running. What changes
# most often stands last, so that a change in app/ rebuilds one small layer.
# Builders with a registry pin it: --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS server
WORKDIR /srv

# The server may write in run/ and /tmp only. run/ is open to everybody like /tmp, because a tmpfs
# mounted over it takes over its mode, but not its owner. /tmp is the home for what CUDA caches.
RUN apt-get update \
 && apt-get install -y --no-install-recommends nginx \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin serving \
 && install -d -m 1777 run

# Nearly all of the image is this layer, and nearly all of the layer is CUDA. The venv has no pip of
# its own: the base image's fills it, with the very files that requirements.txt names, and builds none.
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt .
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt

# The demo's reduced precisions are made and measured here, with packages that the server does not
# need, on more scenes than lie in git. What is measured is true for the processor that builds; another
# that lacks bf16 or VNNI does not use it.
FROM server AS optimized
COPY requirements-optimize.txt .
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
    -r requirements-optimize.txt
RUN apt-get update \
 && apt-get install -y --no-install-recommends fonts-noto-color-emoji \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
COPY scripts/demo_scenes.py scripts/demo_backdrops.py scripts/
COPY models models
COPY app app
RUN python -m scripts.demo_scenes /tmp/scenes --count 2000 \
 && python -m app.commands.optimize --pictures /tmp/scenes \
 && rm -r /tmp/scenes

FROM server
COPY --from=optimized /srv/models models
COPY LICENSE NOTICE ./
COPY samples samples
COPY scripts scripts
RUN scripts/sbom >sbom.json
COPY conf conf
COPY app app

# The version of app/__init__.py; tests/test_conf.py compares them.
LABEL org.opencontainers.image.version=0.1.0

# Where supervisord and its programs write.
ENV SERVING_RUN=run

# By number, so that a cluster which forbids root can see that this is another.
USER 10001:10001
EXPOSE 8999
STOPSIGNAL SIGTERM

# A model has 300 s to load by default (SERVING_LOAD_TIMEOUT_S).
HEALTHCHECK --start-period=300s --interval=10s --timeout=5s CMD ["scripts/ready"]

CMD ["supervisord", "-c", "conf/supervisor.conf"]

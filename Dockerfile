# Camdock in a container: the readable one. Dockerfile.optimized makes the same, smaller.
#
#   docker build --tag camdock .                                        NumPy 2, CPython 3.13
#   docker build --tag camdock:numpy1 --build-arg PINS=numpy1 .         NumPy 1.26 and OpenCV 4.8, CPython 3.11
#   docker build --tag camdock:picamera2 --build-arg PINS=picamera2 .   a Raspberry Pi's own cameras; PINS=picamera2-newest
#
# A set of versions in which a compiled module would break on NumPy cannot be built: the build stops, and says what to
# install instead.

# The sets of pins, each on the Debian whose Python it was made for.
ARG PINS=current
FROM debian:trixie-slim AS current
LABEL org.opencontainers.image.base.name="debian:trixie-slim"
FROM debian:bookworm-slim AS numpy1
LABEL org.opencontainers.image.base.name="debian:bookworm-slim"
# A Raspberry Pi's cameras speak through libcamera, which is Debian's, never PyPI's.
FROM debian:trixie-slim AS picamera2
LABEL org.opencontainers.image.base.name="debian:trixie-slim"
RUN --mount=type=bind,source=docker/image/libcamera,target=/make/libcamera \
    /make/libcamera/install.sh \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old
FROM picamera2 AS picamera2-newest

# ------------------------------------------------------------------------------------- Debian's own Python, and a user

# hadolint ignore=DL3006
FROM ${PINS} AS python

# Debian's Python and what makes a virtual environment; no compiler. No program may raise its rights: the set-user-id
# bits go. The logs and the cache would differ from build to build.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv tini \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} +

# A number that no Debian package takes, so that a volume's files have the same owner everywhere. The date is for
# /etc/shadow, which would say today otherwise.
RUN SOURCE_DATE_EPOCH=0 useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/camdock \
      --shell /usr/sbin/nologin --comment Camdock camdock \
 && install --directory --owner camdock --group camdock \
      /var/lib/camdock /var/lib/camdock/settings /var/lib/camdock/captures

# -------------------------------------------------------------- made here, and not in the image: our wheel and its tools

FROM python AS tools
ARG PINS
WORKDIR /make
COPY constraints.txt pyproject.toml ./
COPY docker/pins docker/pins
COPY docker/image/wanted.py docker/image/
# What the image installs, in two files: nothing else of pyproject.toml can make it install again.
RUN python3 docker/image/wanted.py "${PINS}" /made/wanted
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 docker/image/wanted.py --extra image >image.txt \
 && python3 -m venv /tools \
 && /tools/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --requirement image.txt

# The packages of a set that have no wheel: theirs are made here, beside the compiler.
FROM tools AS compiled
ARG PINS
COPY docker/image/compile.sh docker/image/
RUN --mount=type=cache,target=/root/.cache/pip \
    docker/image/compile.sh "docker/pins/${PINS}" /made/compiled

FROM tools AS made
COPY LICENSE README.md ./
COPY service service
RUN SOURCE_DATE_EPOCH=946684800 /tools/bin/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation \
      --wheel-dir /made/wheel .

# ---------------------------------------------------------------------------------------------------------- the image

FROM python
ARG PINS
ENV PATH=/opt/camdock/venv/bin:$PATH \
    PIP_CONSTRAINT=/opt/camdock/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1

# NumPy first, alone, then the rest under the same exact pins, from wheels only. CPython 3.11 puts a setuptools of its own
# into every new environment, which nothing here needs.
COPY --from=made /made/wanted /opt/camdock
COPY docker/image/settle.sh docker/image/lend.sh docker/image/health.py docker/image/prove.py /opt/camdock/bin/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=compiled,source=/made/compiled,target=/made/compiled \
    python3 -m venv /opt/camdock/venv \
 && pip install --no-compile --only-binary=:all: numpy \
 && pip install --no-compile --only-binary=:all: --find-links /made/compiled --requirement /opt/camdock/requirements.txt \
 && /opt/camdock/bin/lend.sh /opt/camdock/venv \
 && pip uninstall --yes --quiet setuptools \
 && /opt/camdock/bin/settle.sh /opt/camdock/venv

# Our own code: what changes most comes last.
RUN --mount=type=bind,from=made,source=/made/wheel,target=/made/wheel \
    pip install --no-cache-dir --no-compile --no-deps --no-index /made/wheel/*.whl \
 && /opt/camdock/bin/settle.sh /opt/camdock/venv

# The proof: no compiled module that could break (`camdock abi check --strict`, through `camdock seal`, which keeps the
# answer for every start), versions and files as pinned, imports for real. Then what is inside, for whoever has to know.
ARG REVISION=unknown
RUN --mount=type=bind,from=made,source=/tools,target=/tools \
    --mount=type=bind,source=docker/image/describe.py,target=/make/describe.py \
    python -P /opt/camdock/bin/prove.py \
 && PYTHONPATH="$(echo /tools/lib/python3*/site-packages)" \
      python -P /make/describe.py /opt/camdock "${PINS}" "${REVISION}"

LABEL org.opencontainers.image.title="Camdock" \
      org.opencontainers.image.description="A camera service: streams, captures, and recovers when the driver hangs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"

# In a container 127.0.0.1 is the container itself. Whoever listens elsewhere sets CAMDOCK_TOKEN, or says
# CAMDOCK_AUTH=off; without either nothing is started.
ENV CAMDOCK_HOST=0.0.0.0 \
    CAMDOCK_STATE_DIR=/var/lib/camdock/settings \
    CAMDOCK_CAPTURES_DIR=/var/lib/camdock/captures
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/opt/camdock/venv/bin/python", "-I", "-S", "/opt/camdock/bin/health.py"]
# tini is process 1: it passes signals on, and reaps what a killed driver leaves behind.
ENTRYPOINT ["tini", "--"]
CMD ["camdock"]

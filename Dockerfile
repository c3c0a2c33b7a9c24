# syntax=docker/dockerfile:1
# Tollgate in a container: one static binary and nothing else. It does not run as root, and writes only to /data.
#
#   docker build -t tollgate .
#   docker run --read-only --cap-drop=ALL -p 127.0.0.1:8080:8080 -v tollgate-data:/data tollgate
#
# With buildah, use `buildah bud --format docker`, because the other format has no health check.
#
# Without arguments it serves the embedded database in /data. It uses plain HTTP, because the container cannot know who
# reaches its port. Publish the port only to a proxy that terminates TLS, or mount a certificate and set
# TOLLGATE__SERVER__TLS_CERTIFICATE_FILE and TOLLGATE__SERVER__TLS_KEY_FILE.

# To pin the image that builds, so that its contents cannot change:
#
#   docker build --build-arg BUILD_IMAGE=rust:1.95.0-alpine@sha256:... -t tollgate .
#
# `docker buildx imagetools inspect rust:1.95.0-alpine` prints the current digest.
ARG BUILD_IMAGE=rust:1.95.0-alpine

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# The bundled SQLite and the cryptography are written in C. Alpine's C library is linked statically, so the program needs
# no other file.
RUN apk add --no-cache musl-dev
COPY Cargo.toml Cargo.lock askama.toml ./
COPY src src
COPY migrations migrations
COPY config/default.toml config/default.toml
RUN cargo build --locked --release --bin tollgate \
    && mkdir -p /out/data \
    && cp target/release/tollgate /out/tollgate \
    && strip /out/tollgate

FROM scratch
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="Issues and verifies API credentials for the merchants of a payment platform" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /out/tollgate /tollgate
# A number, so that Kubernetes can check that it is not root without the image's user list.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# SQLite keeps large sorts in a file, and there is no /tmp here.
ENV SQLITE_TMPDIR=/data \
    TOLLGATE__SERVER__LISTEN=0.0.0.0:8080 \
    TOLLGATE__SERVER__ALLOW_PLAIN_HTTP=true \
    TOLLGATE__SERVER__DATA_DIR=/data \
    TOLLGATE__OPS__LISTEN=0.0.0.0:9090 \
    TOLLGATE__LOG__FORMAT=json
VOLUME /data
# 8080 is the public port. 9090 is for operations: /metrics has no authentication, so do not publish it.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/tollgate", "healthcheck"]
ENTRYPOINT ["/tollgate"]
CMD ["serve"]

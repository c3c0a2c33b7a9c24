# syntax=docker/dockerfile:1
# Tollgate in a container: one binary on a slim Debian, not root, with nothing to write but /data.
#
#   docker build -t tollgate .
#   docker run --read-only --cap-drop=ALL -p 127.0.0.1:8080:8080 -v tollgate-data:/data tollgate
#
# With buildah: `buildah bud --format docker`, since the other format has no health check.
#
# Started without arguments it serves the embedded store in /data. It speaks plain HTTP, because what reaches a
# container is decided outside of it: publish the port to a proxy that ends TLS, or mount a certificate and set
# TOLLGATE__SERVER__TLS_CERTIFICATE_FILE and TOLLGATE__SERVER__TLS_KEY_FILE.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
# The bundled SQLite and the cryptography are C, and need no more than the compiler that this image has.
COPY Cargo.toml Cargo.lock askama.toml ./
COPY src src
COPY migrations migrations
COPY config/default.toml config/default.toml
RUN cargo build --locked --release --bin tollgate \
    && mkdir -p /out/data \
    && cp target/release/tollgate /out/tollgate \
    && strip /out/tollgate

FROM debian:12-slim
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="Issues and verifies API credentials for the merchants of a payment platform" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /out/tollgate /usr/local/bin/tollgate
# A number, so that a cluster can tell without looking inside that it is not root.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV TOLLGATE__SERVER__LISTEN=0.0.0.0:8080 \
    TOLLGATE__SERVER__ALLOW_PLAIN_HTTP=true \
    TOLLGATE__SERVER__DATA_DIR=/data \
    TOLLGATE__OPS__LISTEN=0.0.0.0:9090 \
    TOLLGATE__LOG__FORMAT=json
VOLUME /data
# 8080 for the public, 9090 for operations: /metrics asks nobody who they are, so do not publish it.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["tollgate", "healthcheck"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]

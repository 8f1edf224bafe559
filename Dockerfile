# The image of a kvlite server: the program, the C library, and nothing else, so no shell either.
#
#   docker build -t kvlite .
#   docker run -p 127.0.0.1:6380:6380 -p 127.0.0.1:6379:6379 -v kvlite:/data kvlite [OPTION...]
#
# docs/deployment.md has the rest. Where no registry answers, deploy/base-images.sh makes the base image.

FROM rust:1.95-bookworm AS build
WORKDIR /build

# The dependencies alone, against sources that hold nothing: this layer lasts until the manifests change. Benchmarks and
# tests are no part of it, nor are their files.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY shard/Cargo.toml shard/
COPY wal/Cargo.toml wal/
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml shard/Cargo.toml wal/Cargo.toml \
    && mkdir -p src shard/src wal/src \
    && touch src/lib.rs shard/src/lib.rs wal/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && cargo clean --release --package kvlite --package shard --package wal

COPY src src
COPY shard/src shard/src
COPY wal/src wal/src
RUN cargo build --release --locked --bin kvlite

# What the last stage holds: the program and the libraries that it is linked with, at their places, and directories for
# the data and for backups that any user may write to, since `docker run --user` may name any.
RUN mkdir -p /image/usr/local/bin \
    && strip --strip-debug -o /image/usr/local/bin/kvlite target/release/kvlite \
    && ldd target/release/kvlite | grep -o '/[^ ]*' | xargs cp --parents -L -t /image \
    && install -d -m 1777 /image/data /image/backup

FROM scratch
COPY --from=build /image /

# Numeric, so that Kubernetes can tell that it is not root.
USER 10001:10001
ENV PATH=/usr/local/bin \
    KVLITE_HOST=0.0.0.0 \
    KVLITE_WAL_PATH=/data \
    KVLITE_ADMIN_PORT=9121
VOLUME /data
EXPOSE 6380 6379 9121
STOPSIGNAL SIGTERM
# A start may read its data back for an hour before it counts as a failure.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1h CMD ["kvlite", "health"]
ENTRYPOINT ["kvlite"]

LABEL org.opencontainers.image.title="kvlite" \
      org.opencontainers.image.description="An in-memory key-value store with persistence, TTL and built-in analytics" \
      org.opencontainers.image.licenses="MIT"

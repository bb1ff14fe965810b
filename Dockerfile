# syntax=docker/dockerfile:1
#
# One image for every role of the mart: `docker run online-mart serve all`, `work all`, `migrate`, …
# It runs as nobody in particular, writes into /var/lib/mart alone, and needs no shell.

FROM rust:1.95.0-bookworm AS toolchain
# The toolchain of the image is that of rust-toolchain.toml; without this rustup would fetch its lints too.
# zlib goes into the program, since the image that runs it has none; lines of sources stay behind.
ENV RUSTUP_TOOLCHAIN=1.95.0 \
    LIBZ_SYS_STATIC=1 \
    CARGO_PROFILE_RELEASE_DEBUG=false \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /mart

FROM toolchain AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM toolchain AS build
COPY --from=plan /mart/recipe.json recipe.json
# What the mart depends on is built in a layer of its own, which stays until Cargo.lock or a manifest changes.
RUN cargo chef cook --locked --release --package api --bin mart --recipe-path recipe.json
COPY . .
RUN cargo build --locked --release --package api --bin mart && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /mart/target/release/mart /usr/local/bin/mart
# A volume that is mounted here for the first time takes over this owner.
COPY --from=build --chown=65532:65532 /data /var/lib/mart
ENV MART_DATA_DIR=/var/lib/mart \
    MART_HTTP_ADDR=0.0.0.0:8080 \
    MART_LOG_FORMAT=json
# By number, so that a cluster can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/mart
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=6s --retries=3 --start-period=60s --start-interval=1s \
    CMD ["/usr/local/bin/mart", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/mart"]
CMD ["help"]

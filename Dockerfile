# The gateway with its bundled plugins: docker build -t moongate .
#
# A site that mirrors or hardens its own bases names them:
#   docker build --build-arg BUILD_IMAGE=registry.example/rust:1.95 --build-arg RUNTIME_IMAGE=registry.example/base .
# BUILD_IMAGE needs Rust 1.95 and a C compiler, and the target wasm32-unknown-unknown or rustup to add it.
# RUNTIME_IMAGE needs the C library that BUILD_IMAGE has, or a newer one, and libgcc_s. It needs no shell.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
# Distroless rather than Debian: 10 MB instead of 30, and neither shell nor package manager for an intruder to use or
# a scanner to complain about. The gateway needs none: health is asked by the gateway's own binary, below.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
RUN test -d "$(rustc --print target-libdir --target wasm32-unknown-unknown)" \
    || rustup target add wasm32-unknown-unknown
# rust-toolchain.toml stays outside: the image pins the compiler, and rustup would fetch the linter for it.
COPY Cargo.toml Cargo.lock build.rs ./
COPY wit wit
COPY plugins plugins
COPY templates templates
COPY src src
# By a file in the first the compiler is guided. Both have members of the workspace, which are not built here; without them
# Cargo would not read the rest.
COPY bench bench
COPY tests/conformance tests/conformance
RUN RUSTFLAGS="-Cprofile-use=$PWD/bench/guide.profdata" cargo build --release --locked \
    && mkdir -p /out/plugins /out/state/moongate \
    && cp target/release/moongate /out/moongate \
    # As the user that will run it, and nobody else may write there: compiled code is believed only then.
    && /out/moongate plugin compile --cache /out/state/moongate/compiled \
    && chmod -R go-rwx /out/state/moongate/compiled

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="Moongate" \
      org.opencontainers.image.description="An HTTP gateway whose balancers and filters are WebAssembly plugins and whose services live in ZooKeeper" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /LICENSE
# root's own, so that the gateway cannot write to itself or to its plugins.
COPY --from=build /out/moongate /moongate
COPY --from=build /out/plugins /plugins
# By its parent: an empty directory copied as such would not get the owner with every builder.
COPY --from=build --chown=65532:65532 /out/state/ /var/lib/

# A configuration mounted at /etc/moongate/moongate.toml is found; without one, the variables below are all.
WORKDIR /etc/moongate
ENV MOONGATE_LISTEN=0.0.0.0:8080 \
    MOONGATE_ADMIN=127.0.0.1:9900 \
    MOONGATE_PLUGINS=/plugins \
    MOONGATE_CACHE=/var/lib/moongate/compiled
# *.wasm dropped into the first. In the second what is compiled of them, and of the bundled ones from the start: a new volume
# gets what the image has there. The last good routes, too, if the configuration keeps them there (registry.zookeeper.snapshot).
VOLUME ["/plugins", "/var/lib/moongate"]
# The admin API listens on loopback and stays inside. One port only: Registrator would call a service with two
# NAME-8080 and NAME-9900.
EXPOSE 8080
# By number, because Kubernetes' runAsNonRoot cannot look a name up. It is `nonroot` of distroless.
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["/moongate", "healthcheck"]
# Without a shell in between, so that SIGTERM reaches the gateway, which then drains.
ENTRYPOINT ["/moongate"]

# Stands in for rust:1.95-slim-bookworm where no image can be pulled: the distribution's C compiler, and this machine's own Rust
# (its sysroot is the context).
ARG BASE
FROM ${BASE}
RUN apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# Whom this machine trusts: there may be a proxy of a site's own between it and the registry.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY rust /opt/rust
ENV PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

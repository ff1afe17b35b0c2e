# Stands in for gcr.io/distroless/cc-debian12:nonroot where no image can be pulled: the C library, libgcc, certificates and time
# zones of the distribution, unpacked, with nobody's scripts run. No shell, no package manager.
ARG BASE
FROM ${BASE} AS packages
RUN apt-get update -q && mkdir -p /packages /root-fs && cd /packages \
    && apt-get install -y -q --no-install-recommends ca-certificates >/dev/null \
    && apt-get download -q libc6 libgcc-s1 gcc-12-base base-files netbase tzdata \
    && for package in *.deb; do dpkg -x "$package" /root-fs; done \
    && mkdir -p /root-fs/etc/ssl/certs /root-fs/home/nonroot /root-fs/tmp && chmod 1777 /root-fs/tmp \
    && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >/root-fs/etc/passwd \
    && printf 'root:x:0:\nnonroot:x:65532:\n' >/root-fs/etc/group \
    && chown 65532:65532 /root-fs/home/nonroot && rm -rf /root-fs/usr/share/doc /root-fs/usr/share/man

FROM scratch
COPY --from=packages /root-fs/ /
USER 65532:65532

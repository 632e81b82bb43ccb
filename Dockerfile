# Two images from one root directory, which road/image.sh prepares: one for Spin's containerd shim, and one for any container
# runtime. Without --target, Docker builds the last stage, the image for the shim.
FROM scratch AS root

# This must be the first step, because Docker's classic builder takes the platform from it; after any other step, the platform
# would be this machine's. Spin keeps its state in /.spin. If that directory is missing, Spin cannot start with a read-only
# root or as a user other than root.
COPY target/image/ /

ARG COMMIT=unknown
LABEL org.opencontainers.image.title="request-info" \
      org.opencontainers.image.description="Shows visitors their own request: browser, referring URL, event and address" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="$COMMIT"

USER 65532:65532

# An ordinary container with the project's own host. Docker waits 10 s after SIGTERM, and so does the manifest's grace period
# after preStop (45 - 35 s). A drain of 8 s leaves 2 s to end. 1,200 connections and 4 MiB for each instance fit into
# 128 MiB; host/src/visitors.rs has the arithmetic.
FROM root AS standalone
ENV SPIN_HTTP_LISTEN_ADDR=0.0.0.0:8080 SPIN_MAX_INSTANCE_MEMORY=4194304
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=2s CMD ["/request-info-host", "healthcheck"]
ENTRYPOINT ["/request-info-host", "--from", "/spin.toml", "--precompiled", "--drain", "8s", "--max-connections", "1200"]

# For Spin's containerd shim: only the application's manifest, the component at the path that it names, and the component's SBOM,
# in which scanners look up vulnerabilities.
FROM root AS shim
# containerd requires a command, and the shim ignores it.
ENTRYPOINT ["/spin.toml"]

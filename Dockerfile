# Two images of one root directory, which road/image.sh lays out: for Spin's containerd shim, and for any container runtime.
# Without --target it is the first of the two, because Docker builds the last stage.
FROM scratch AS root

# The first step, because Docker's classic builder takes the platform from here: after any other it would be this
# machine's own. /.spin is where Spin keeps its state: where it is missing, neither a read-only root nor a user other
# than root gets past the start.
COPY target/image/ /

ARG COMMIT=unknown
LABEL org.opencontainers.image.title="request-info" \
      org.opencontainers.image.description="Shows visitors their own request: browser, referring URL, event and address" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="$COMMIT"

USER 65532:65532

# An ordinary container, with the project's own host in it. Docker waits 10 s after SIGTERM, and so does the manifest's
# grace period after preStop (45 - 35 s): 8 s to drain in leave 2 s to end. 1,200 connections and 4 MiB for each instance
# fit into 128 MiB, by the arithmetic in host/src/visitors.rs.
FROM root AS standalone
ENV SPIN_HTTP_LISTEN_ADDR=0.0.0.0:8080 SPIN_MAX_INSTANCE_MEMORY=4194304
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=2s CMD ["/request-info-host", "healthcheck"]
ENTRYPOINT ["/request-info-host", "--from", "/spin.toml", "--precompiled", "--drain", "8s", "--max-connections", "1200"]

# What Spin's containerd shim runs: the application's manifest and, where it says, the component. Nothing else but the
# list of what the component is made of, in which scanners look up vulnerabilities.
FROM root AS shim
# containerd wants a command; the shim ignores it.
ENTRYPOINT ["/spin.toml"]

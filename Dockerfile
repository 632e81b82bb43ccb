# What Spin's containerd shim runs: the application's manifest and, where it says, the component. Nothing else but the
# list of what the component is made of, in which scanners look up vulnerabilities. road/image.sh lays all of it out.
FROM scratch

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

# containerd wants a command; the shim ignores it.
ENTRYPOINT ["/spin.toml"]

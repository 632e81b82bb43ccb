# What Spin's containerd shim runs: the application's manifest and, where it says, the component. Nothing else.
FROM scratch

ARG COMMIT=unknown
LABEL org.opencontainers.image.title="request-info" \
      org.opencontainers.image.description="Shows visitors their own request: browser, referring URL, event and address" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="$COMMIT"

# Spin keeps its state here: where it is missing, neither a read-only root nor a user other than root gets past the start.
WORKDIR /.spin
WORKDIR /

COPY spin.toml /
COPY target/wasm32-wasip2/component/request_info.wasm /target/wasm32-wasip2/component/

USER 65532:65532

# containerd wants a command; the shim ignores it.
ENTRYPOINT ["/spin.toml"]

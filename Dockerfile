# The image with a container program: `docker build -t kubernetes-sidecar-injector:0.1.0 .`
# Without one: `cargo xtask image`, which checks that both make the same image. See docs/image.md.

FROM rust:1.95.0-bookworm AS build
WORKDIR /source
COPY . .
# The static C library of the gnu target needs no second toolchain, and the program runs where there is nothing else.
# Packed relocations (glibc 2.36) make it 0.8 MB smaller.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    target="$(rustc --version --verbose | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
       cargo build --release --locked --target "$target" --package sidecar-injector \
    && install -D --mode=0755 "target/$target/release/sidecar-injector" /image/sidecar-injector

FROM scratch
COPY --from=build /image/ /
LABEL org.opencontainers.image.title="kubernetes-sidecar-injector" \
      org.opencontainers.image.description="Adds sidecar containers to Kubernetes pods" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8443
ENTRYPOINT ["/sidecar-injector"]
CMD ["serve"]

# Sourced by ./run once an engine of our own runs: makes local images under the names that are used. A second run finds them.
# shellcheck shell=sh disable=SC2154
context=$work/context

have() {
    docker image inspect "$1" >/dev/null 2>&1
}

# Debian itself, as small as it gets.
make_debian() {
    have debian:bookworm-slim && return
    need debootstrap:debootstrap
    echo "Making debian:bookworm-slim"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" >"$work/debootstrap.log"
    tar -C "$work/debian" -c . | docker import - debian:bookworm-slim >/dev/null
    rm -rf "$work/debian"
}

# `make_image NAME STAGE`
make_image() {
    have "$1" && return
    echo "Making $1"
    docker build --quiet --file tests/compose/images.Dockerfile --target "$2" --tag "$1" "$context" >/dev/null
}

# The compiler and the crates that this machine has; hard links, where they can be.
gather() {
    rm -rf "$context"
    mkdir -p "$context/toolchain" "$context/cargo/registry"
    cp /etc/ssl/certs/ca-certificates.crt tests/compose/postgres.sh "$context"
    cargo fetch --locked --quiet
    link "$(rustc --print sysroot)/bin" "$(rustc --print sysroot)/lib" "$context/toolchain"
    link "${CARGO_HOME:-$HOME/.cargo}/registry/index" "${CARGO_HOME:-$HOME/.cargo}/registry/cache" "$context/cargo/registry"
}

link() {
    cp -al "$@" 2>/dev/null || cp -a "$@"
}

make_images() {
    make_debian
    gather
    make_image rust:1.91-bookworm rust
    make_image python:3.11-slim-bookworm python
    make_image quay.io/coreos/etcd:v3.5.17 etcd
    make_image postgres:15-bookworm postgres
    make_image prom/prometheus:v2.55.1 prometheus
    rm -rf "$context"
}

# Sourced by ./package and ./systemd: the package as a user would build it, and a Debian to put it into. Wants root.
#   PROFILE=dev    with a binary that builds sooner and runs slower
# shellcheck shell=sh
need_build_tools
need debootstrap:debootstrap dpkg-shlibdeps:dpkg-dev
work=$PWD/target/deployment
profile=${PROFILE:-release}
built=target/$(echo "$profile" | sed 's/^dev$/debug/')

# `build CARGO_ARGUMENTS…`, and the tool that packs it.
build() {
    cargo build --locked --profile "$profile" "$@"
    mkdir -p "$work/target/release"
    strip -o "$work/target/release/pointsman" "$built/pointsman"
    [ -x "$work/bin/cargo-deb" ] || cargo install --quiet --debug --locked --root "$work" cargo-deb@3.8.0
}

# `package VERSION FOLDER`: into that folder, as pointsman_VERSION.deb.
package() {
    CARGO_TARGET_DIR=$work/target PATH=$work/bin:$PATH cargo deb --quiet --no-build --no-strip --fast \
        --deb-version "$1" --output "$2/pointsman_$1.deb" >/dev/null
}

# `make_debian FOLDER [PACKAGES]`: the smallest Debian there is, and these; a second run finds it.
make_debian() {
    if [ ! -e "$1.made" ]; then
        rm -rf "$1"
        mkdir -p "$work"
        debootstrap --variant=minbase ${2:+"--include=$2"} bookworm "$1" >"$1.log" || {
            tail -n 5 "$1.log" >&2
            exit 1
        }
        rm -f "$1"/var/cache/apt/archives/*.deb
        touch "$1.made"
    fi
}

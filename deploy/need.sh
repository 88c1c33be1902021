# Sourced by ./demo, ./drill and ./test. `need COMMAND:PACKAGE…` installs the Debian packages of the commands that are missing;
# where it cannot, it says exactly what to install and ends the script.

# What the build itself runs: zlib-ng wants cmake and a C compiler, etcd-client wants protoc and the well-known types beside it.
need_build_tools() {
    if ! command -v cargo >/dev/null 2>&1; then
        echo "Please install Rust 1.91 or newer: https://rustup.rs" >&2
        exit 1
    fi
    need cc:build-essential make:make cmake:cmake protoc:protobuf-compiler
    if [ "$(command -v protoc)" = /usr/bin/protoc ] && [ ! -f /usr/include/google/protobuf/descriptor.proto ]; then
        install libprotobuf-dev
    fi
}

need() {
    missing=
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # The words of $missing are package names, one each.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install $missing
}

install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Please install what Debian calls: $*" >&2
        echo "(for example: brew install cmake protobuf etcd, or dnf install cmake protobuf-devel gcc gcc-c++ etcd)" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null 2>&1; then
            echo "Please run as root: apt-get install -y $*" >&2
            exit 1
        fi
    fi
    echo "Installing: $*"
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    case " $* " in
        # Debian starts an etcd of its own on port 2379, where the demo and the docs have theirs.
        *" etcd-server "*) [ ! -d /run/systemd/system ] || $as_root systemctl disable --now etcd ;;
    esac
    case " $* " in
        # And an nginx on port 80, where a test has no business.
        *" nginx-light "*) [ ! -d /run/systemd/system ] || $as_root systemctl disable --now nginx ;;
    esac
}

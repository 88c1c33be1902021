# Sourced before each suite: what it needs around it, and how it says how it went. Ends what it started when the suite ends.
# shellcheck shell=sh disable=SC2034,SC2154
. deploy/need.sh

started=
trap 'for process in $started; do kill "$process" 2>/dev/null || :; done' EXIT

# The sample service; its address is in $INSTANCE.
instance() {
    target/debug/examples/sample --listen 127.0.0.1:0 --name one >"$SCRATCH/instance.out" 2>"$SCRATCH/instance.log" &
    started="$started $!"
    INSTANCE=$(said "$SCRATCH/instance.out" 's/^listening //p')
}

# `pointsman CONFIGURATION`: a proxy with these sections beside its listener (unless they have one), registry and admin endpoint. Its addresses are in
# $LISTEN and $ADMIN. A [[service]] and a [[route]] in the file say where requests go.
pointsman() {
    printf '%s\n' "$1" >"$SCRATCH/pointsman.toml"
    case "$1" in
        *'[[listener]]'*) listen= ;;
        *) listen='--listen 127.0.0.1:0' ;;
    esac
    # The words of $listen are arguments.
    # shellcheck disable=SC2086
    POINTSMAN_REGISTRY_LISTEN=127.0.0.1:0 POINTSMAN_REGISTRY_DATA='' POINTSMAN_PROXY_SHUTDOWN_GRACE=0s \
        POINTSMAN_ADMIN_ADDRESS=127.0.0.1:0 target/debug/pointsman run $listen --config "$SCRATCH/pointsman.toml" \
        >"$SCRATCH/pointsman.out" 2>"$SCRATCH/pointsman.log" &
    started="$started $!"
    LISTEN=$(said "$SCRATCH/pointsman.log" 's/.*Proxy listens.* address=//p')
    ADMIN=$(said "$SCRATCH/pointsman.log" 's/.*Admin endpoint listens.* address=//p')
}

# The first line of a file that the pattern prints, once there is one.
said() {
    waits=0
    until grep -q . <<WORDS
$(sed -n "$2" "$1" 2>/dev/null)
WORDS
    do
        waits=$((waits + 1))
        if [ "$waits" -gt 200 ]; then
            echo "$SUITE: nothing of it in $1 after 20 seconds:" >&2
            tail -n 5 "$1" >&2
            exit 1
        fi
        sleep 0.1
    done
    sed -n "$2" "$1" | head -n 1
}

# `python PACKAGE...`: an interpreter, in $PYTHON, that has these packages of PyPI.
python() {
    need python3:python3
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    PYTHON=target/conformance/$SUITE/bin/python
    [ -x "$PYTHON" ] || python3 -m venv "target/conformance/$SUITE"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"
}

# `report CASES PASSED`: the suite's line, and whether it passed.
report() {
    echo "$SUITE: $1 cases, $2 passed, $(($1 - $2)) failed"
    [ "$1" -gt 0 ] && [ "$1" -eq "$2" ]
}

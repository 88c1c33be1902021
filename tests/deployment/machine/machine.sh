# Sourced by ../systemd: a machine whose process 1 is Debian's systemd, in namespaces, with a loopback of its own and files that
# are forgotten. Wants root and a kernel with cgroup v2, whoever uses that on the machine itself. `work` is ours.
# shellcheck shell=sh disable=SC2154
machine_start() {
    need unshare:util-linux ip:iproute2
    cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    if [ -z "$cgroups" ]; then
        echo "No machine can run here: there is no cgroup2 in /proc/mounts" >&2
        exit 1
    fi
    cgroup=$cgroups/pointsman-test-$$
    mkdir "$cgroup"
    mkdir -p "$work/root"
    unshare --pid --mount --net --uts --ipc --fork --kill-child \
        tests/deployment/machine/boot "$work/machine" "$cgroup" "$work/root" </dev/null >"$work/machine.log" 2>&1 &
    unshared=$!
    waits=0
    # Its own process 1, as this machine counts.
    until MACHINE=$(cat "/proc/$unshared/task/$unshared/children" 2>/dev/null) && [ -n "$MACHINE" ] && inside systemctl is-system-running --wait >/dev/null 2>&1; do
        waits=$((waits + 1))
        if [ "$waits" -gt 100 ] || ! kill -0 "$unshared" 2>/dev/null; then
            echo "systemd does not come up here; it says: $(tail -n 5 "$work/machine.log")" >&2
            exit 1
        fi
        sleep 0.2
    done
    MACHINE=${MACHINE% }
    export MACHINE
}

# `inside COMMAND…`, as its root.
inside() {
    # It may say several words while it starts.
    # shellcheck disable=SC2086
    nsenter --target ${MACHINE} --mount --pid --net --uts --ipc --cgroup --root --wd \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER= "$@"
}

# All of its processes end with its first.
machine_stop() {
    kill -KILL "$unshared" 2>/dev/null || :
    wait "$unshared" 2>/dev/null || :
    waits=0
    until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do
        waits=$((waits + 1))
        [ "$waits" -lt 50 ] || break
        sleep 0.1
    done
}

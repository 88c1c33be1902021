# Sourced by ./run: a Docker engine of our own, beside nobody else's, with everything it keeps under $work. Wants root.
# shellcheck shell=sh disable=SC2154
engine_start() {
    need dockerd:docker.io iptables:iptables
    export DOCKER_HOST="unix://$work/docker.sock"
    # The command that came with the engine builds without a plugin; a newer one that is found first would not.
    PATH=/usr/bin:$PATH
    iptables-save >"$work/iptables"
    forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
    dockerd --data-root "$work/engine" --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" \
        --bip 172.30.250.1/24 --default-address-pool base=172.30.0.0/17,size=24 >"$work/engine.log" 2>&1 &
    engine=$!
    waits=0
    until docker info >/dev/null 2>&1; do
        waits=$((waits + 1))
        if [ "$waits" -gt 60 ] || ! kill -0 "$engine" 2>/dev/null; then
            echo "No Docker engine can run here; its log ends:" >&2
            tail -n 5 "$work/engine.log" >&2
            exit 1
        fi
        sleep 0.5
    done
}

# Its images stay for the next run; what it changed on this machine does not.
engine_stop() {
    kill "$engine" 2>/dev/null || return 0
    wait "$engine" || :
    ip link delete docker0 2>/dev/null || :
    iptables-restore <"$work/iptables"
    echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
}

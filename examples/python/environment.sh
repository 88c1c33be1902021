# Sourced by ./run and ./check, from this folder: what the landscape needs, and a Python environment with the versions of
# constraints.txt in target/python-venv. Sets `python` and `POINTSMAN`.
root=$(cd ../.. && pwd)
. "$root/deploy/need.sh"
need etcd:etcd-server python3:python3
[ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || command -v initdb >/dev/null 2>&1 || install postgresql
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3-venv

venv=$root/target/python-venv
python=$venv/bin/python
[ -x "$python" ] || python3 -m venv "$venv"
if ! cmp -s constraints.txt "$venv/installed"; then
    "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[services,check]'
    cp constraints.txt "$venv/installed"
fi

if [ -z "${POINTSMAN:-}" ]; then
    for POINTSMAN in "$root/target/release/pointsman" "$root/target/debug/pointsman" "$(command -v pointsman || true)"; do
        [ ! -x "$POINTSMAN" ] || break
    done
fi
if [ ! -x "$POINTSMAN" ]; then
    need_build_tools
    (cd "$root" && cargo build --locked)
    POINTSMAN=$root/target/debug/pointsman
fi
export POINTSMAN

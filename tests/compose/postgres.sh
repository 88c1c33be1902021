#!/bin/sh
# What the real image does at its first start: a cluster with this password, and the scripts that were mounted.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    chown postgres "$PGDATA" && chmod 700 "$PGDATA"
    echo "$POSTGRES_PASSWORD" >/tmp/password
    setpriv --reuid postgres --regid postgres --clear-groups "$bin/initdb" --auth scram-sha-256 --pwfile /tmp/password --encoding UTF8
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        # A line is a statement; `postgres --single` needs no password.
        setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" --single -D "$PGDATA" postgres <"$script"
    done
fi
exec setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D "$PGDATA" -c listen_addresses='*'

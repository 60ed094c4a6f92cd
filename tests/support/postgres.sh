#!/usr/bin/env bash
# A PostgreSQL server for tests, with the programs in the folder $1 and the settings in the arguments after it. It listens
# on 127.0.0.1, and runs as an unprivileged user. Lines on standard input say what it is to do: `kill` (SIGKILL), `stop`,
# `start`, `copy FOLDER` (start as a standby of the server whose folder that is). It answers each with `up PORT FOLDER` or
# `down`. When standard input ends, so also when whoever started this is killed, the server stops and its folder goes.
set -euo pipefail
bin=$1
shift

folder=$(mktemp -d "${TMPDIR:-/tmp}/dcr-edge-postgres.XXXXXX")
as=()
if [[ $(id -u) == 0 ]]; then
    # The server refuses to run as root.
    as=(setpriv --reuid=nobody --regid="$(id -gn nobody)" --clear-groups)
    chown nobody "$folder"
fi
chmod 700 "$folder"
data=$folder/data
port=

stop() { [[ ! -e $data/postmaster.pid ]] || "${as[@]}" "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null 2>&1 || true; }
trap 'stop; rm -rf "$folder"' EXIT
# What ends the tests ends this, too, by the end of the input.
trap '' INT TERM

start() {
    local attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        # Below the ports that systems give to clients.
        [[ -n $port && $attempt -lt 3 ]] || port=$((10240 + (RANDOM * 32768 + RANDOM) % 22000))
        if "${as[@]}" "$bin/pg_ctl" -D "$data" -l "$folder/log" -w -t 60 -o "-p $port" start >/dev/null 2>&1; then
            printf 'up %s %s\n' "$port" "$folder"
            return
        fi
    done
    cat "$folder/log" >&2
    exit 1
}

settings() {
    printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$folder'" 'shared_buffers = 32MB' \
        'max_connections = 300' "$@" >>"$data/postgresql.conf"
}

new() {
    "${as[@]}" "$bin/initdb" -D "$data" -U dcr -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
    settings "$@"
}

while read -r command argument; do
    case $command in
        start)
            [[ -d $data ]] || new "$@"
            start
            ;;
        copy)
            "${as[@]}" "$bin/pg_basebackup" -D "$data" -h "$argument" -p "$(sed -n 4p "$argument/data/postmaster.pid")" \
                -U dcr -R -c fast
            settings "$@"
            start
            ;;
        promote)
            "${as[@]}" "$bin/pg_ctl" -D "$data" -w promote >/dev/null
            printf 'up %s %s\n' "$port" "$folder"
            ;;
        kill)
            server=$(head -n 1 "$data/postmaster.pid")
            # All of it at once, as the kernel would: what is left of a server would keep the next one from starting.
            # shellcheck disable=SC2046 # a word for each process
            kill -KILL "$server" $(cat "/proc/$server/task/$server/children")
            while kill -0 "$server" 2>/dev/null; do sleep 0.01; done
            rm -f "$data/postmaster.pid"
            printf 'down\n'
            ;;
        stop)
            stop
            printf 'down\n'
            ;;
    esac
done

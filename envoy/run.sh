#!/usr/bin/env bash
# Starts the store, an authorization server and Envoy in the foreground: what `make run` does after building.
#
#   envoy/run.sh           runs until Ctrl-C, SIGTERM or SIGHUP, then stops all it started and exits with 0;
#                          if something does not start or dies, stops the rest and exits with 1
#   envoy/run.sh --check   only says whether the variables and ports are fine
#
# Variables are those of the Makefile; render.sh says what TRUSTED_HOPS and the two of GEOIP do. In $RUN_DIR, what is
# there already is kept: database, certificate authority.
set -euo pipefail
cd "$(dirname "$0")/.."

HTTP_PORT=${HTTP_PORT:-10000}
HTTPS_PORT=${HTTPS_PORT:-10443}
ADMIN_PORT=${ADMIN_PORT:-9901}
STORE_PORT=${STORE_PORT:-8081}
RUN_DIR=${RUN_DIR:-.run}
# As a word of the shell, for what is printed.
run_dir=$(printf '%q' "$RUN_DIR")
pid_file=$RUN_DIR/run.pid
CONCURRENCY=${CONCURRENCY:-2}
database_in_run_dir=
[[ -n ${DATABASE_URL:-} ]] || database_in_run_dir=yes
# From the environment only: it may have a password in it, and arguments are public.
export DATABASE_URL=${DATABASE_URL:-sqlite://$RUN_DIR/dcr.db}
export DCR_STORE=target/release/dcr-store WASM=target/wasm32-wasip1/release/dcr_edge.wasm

fail() {
    printf 'run: %s\n' "$1" >&2
    exit 1
}

# --- before anything starts ---------------------------------------------------------------------------------------

is_in_use() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Prints the process that wrote FILE, if it still runs and is PROGRAM: ids are used again.
process_of() {
    local file=$1 program=$2 pid
    pid=$(cat "$file" 2>/dev/null) && [[ $pid =~ ^[1-9][0-9]*$ && $pid != "$$" ]] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "\(^\|/\)$program\$" && printf '%s\n' "$pid"
}

# Says why a port may be in use: a run that was killed leaves its programs behind.
left_behind() {
    local name=$1 pid
    pid=$(process_of "$RUN_DIR/$name.pid" "$2") || return 0
    printf ' (an earlier run left its %s behind: kill %s)' "$name" "$pid"
}

check() {
    local name port pid program seen=' '
    if pid=$(process_of "$pid_file" run.sh); then
        fail "process $pid runs a gateway in RUN_DIR=$run_dir: stop it, or choose another directory with RUN_DIR=DIR"
    fi
    for name in HTTP_PORT HTTPS_PORT ADMIN_PORT STORE_PORT; do
        port=${!name}
        if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then
            fail "$name=$port is not a port: expected 1 to 65535"
        fi
        [[ $seen != *" $port "* ]] || fail "$name=$port is given twice: each port needs its own number"
        seen+="$port "
        if is_in_use "$port"; then
            program=(envoy envoy)
            [[ $name != STORE_PORT ]] || program=(store dcr-store)
            fail "port $port is in use: stop what listens there$(left_behind "${program[@]}"), or choose another with $name=PORT"
        fi
    done
    [[ ${TRUSTED_HOPS:-0} =~ ^[0-9]+$ ]] || fail "TRUSTED_HOPS=$TRUSTED_HOPS is not a number of proxies"
    [[ ${GEOIP_CITY_DATABASE:+set} == "${GEOIP_ASN_DATABASE:+set}" ]] ||
        fail 'one of GEOIP_CITY_DATABASE and GEOIP_ASN_DATABASE is set without the other: set both or none'
    for name in GEOIP_CITY_DATABASE GEOIP_ASN_DATABASE; do
        # Envoy would end with a stack trace.
        [[ -z ${!name:-} || (-f ${!name} && -r ${!name}) ]] || fail "$name=${!name} is not a readable file"
    done
    [[ $CONCURRENCY =~ ^[1-9][0-9]*$ ]] || fail "CONCURRENCY=$CONCURRENCY is not a number of workers"
    [[ ! -e $RUN_DIR || -d $RUN_DIR ]] || fail "RUN_DIR=$run_dir is not a directory"
    [[ -z $database_in_run_dir || $RUN_DIR != *['?#%']* ]] ||
        fail "RUN_DIR=$run_dir has one of ?, # and % in it, which the database's URL cannot have: choose another directory, or set DATABASE_URL"
    command -v flock >/dev/null || fail 'flock is missing: install it (Debian: apt install util-linux)'
    command -v openssl >/dev/null || fail 'openssl is missing: install it (Debian: apt install openssl)'
}

check
[[ ${1:-} != --check ]] || exit 0

[[ -x $DCR_STORE && -r $WASM ]] || fail 'the build is missing: run make build'
envoy=$(envoy/get-envoy.sh "${ENVOY_VERSION:?is set by make: run make run}")
umask 077
mkdir -p "$RUN_DIR"
# Held by what this starts, too: what a killed gateway left behind keeps the folder until it is gone.
exec {lock}>"$RUN_DIR/run.lock"
if ! flock --nonblock "$lock"; then
    ! process_of "$pid_file" run.sh >/dev/null || fail "another gateway has just been started in RUN_DIR=$run_dir"
    fail "RUN_DIR=$run_dir is still in use$(left_behind envoy envoy)$(left_behind store dcr-store)$(left_behind authorization-server '\(dcr-store\|server.mjs\)')"
fi
printf '%s\n' "$$" >"$pid_file"

# --- processes ----------------------------------------------------------------------------------------------------

# In the order in which they start; they stop in the reverse order, so that no request finds its server gone.
names=()
declare -A pids

start() {
    local name=$1
    shift
    # A process group of its own: Ctrl-C reaches this script only, which then stops one after the other.
    set -m
    "$@" </dev/null >"$RUN_DIR/$name.log" 2>&1 &
    set +m
    names+=("$name")
    pids[$name]=$!
    printf '%s\n' "$!" >"$RUN_DIR/$name.pid"
}

stop_all() {
    trap '' INT TERM HUP
    local i name pid tries
    for ((i = ${#names[@]} - 1; i >= 0; i--)); do
        pid=${pids[${names[i]}]}
        kill -TERM "$pid" 2>/dev/null || continue
        for ((tries = 0; tries < 100; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for name in "${names[@]}"; do rm -f "$RUN_DIR/$name.pid"; done
    rm -f "$pid_file"
}
trap stop_all EXIT
trap 'printf "\nstopping\n"; exit 0' INT TERM HUP

# Ends everything with the last lines of what died; returns while all run.
check_alive() {
    local name
    for name in "${names[@]}"; do
        kill -0 "${pids[$name]}" 2>/dev/null && continue
        tail -n 10 "$RUN_DIR/$name.log" >&2
        fail "$name has ended; the lines above are the end of $run_dir/$name.log"
    done
}

# Prints the status of `GET http://127.0.0.1:PORT/PATH`; fails without an answer.
status_of() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' "$2" >&3
        read -r -t 5 _ status _ <&3
        printf '%s\n' "$status"
    ) 2>/dev/null
}

# Waits until `CONDITION …` holds, 60 seconds at most, or ends everything.
wait_until() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@"; do
        check_alive
        ((SECONDS < deadline)) || fail "$what is not ready after 60 seconds; see $run_dir/*.log"
        sleep 0.1
    done
}

answers_200() {
    [[ $(status_of "$@") == 200 ]]
}

authorization_server_listens() {
    AUTHORIZATION_SERVER_PORT=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$RUN_DIR/authorization-server.log")
    [[ -n $AUTHORIZATION_SERVER_PORT ]]
}

# Whoever finds both /readyz and Envoy's /ready at 200 may register: Envoy is ready before it has the settings.
start store "$DCR_STORE" serve --listen "127.0.0.1:$STORE_PORT" --ready-after-edge
wait_until 'the store' answers_200 "$STORE_PORT" /livez
notice=$(envoy/prepare.sh --tokens "$RUN_DIR")

if oidc_provider=$(envoy/authorization-server/install.sh); then
    server='oidc-provider; any user, password demo'
    STORE_URL=http://127.0.0.1:$STORE_PORT SERVER_TOKEN=$(cat "$RUN_DIR/server-token") TENANT=$(cat "$RUN_DIR/tenant") \
        start authorization-server node "$oidc_provider"
else
    server='a stub, which logs nobody in: the lines above say what oidc-provider needs'
    start authorization-server "$DCR_STORE" stub-authorization-server --listen 127.0.0.1:0
fi
wait_until 'the authorization server' authorization_server_listens

export HTTP_PORT HTTPS_PORT ADMIN_PORT STORE_PORT AUTHORIZATION_SERVER_PORT
export LISTEN_HOST=127.0.0.1 ADMIN_HOST=127.0.0.1 STORE_HOST=127.0.0.1 AUTHORIZATION_SERVER_HOST=127.0.0.1
envoy/prepare.sh --configuration "$RUN_DIR"
# Each connection takes a file descriptor, and the usual soft limit is 1024.
ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
DCR_EDGE_TOKEN=$(cat "$RUN_DIR/edge-token") start envoy \
    "$envoy" -c "$RUN_DIR/envoy.yaml" --concurrency "$CONCURRENCY" --disable-hot-restart
wait_until 'Envoy' answers_200 "$ADMIN_PORT" /ready
wait_until 'the filter' answers_200 "$STORE_PORT" /readyz

without_password() {
    if [[ $1 =~ ^([a-z]+://)[^/@]*@(.*)$ ]]; then
        printf '%s…@%s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    else
        printf '%s\n' "$1"
    fi
}

console_link=$("$DCR_STORE" console-link --tenant "$(cat "$RUN_DIR/tenant")" --url "http://127.0.0.1:$STORE_PORT" --ttl 1h) ||
    fail 'the link to the console could not be made'

authority=
if openssl verify -CAfile "$RUN_DIR/ca.pem" "$RUN_DIR/server.pem" >/dev/null 2>&1; then
    authority=" (authority: $run_dir/ca.pem)"
fi

cat <<END

dcr-edge is ready; Ctrl-C stops it.

  gateway   http://localhost:$HTTP_PORT and https://localhost:$HTTPS_PORT$authority
  console   $console_link
            signs you in once, within an hour; later sign in with the token in $run_dir/management-token
  store     http://127.0.0.1:$STORE_PORT, database $(without_password "$DATABASE_URL")
  admin     http://127.0.0.1:$ADMIN_PORT (Envoy)
  login     authorization server: $server
  logs      $run_dir/*.log
${notice:+
Note: $notice
}
1. Switch registration on. Answers 200 with the tenant's settings; the edge has them within two seconds.

curl -i -X PATCH http://localhost:$HTTP_PORT/api/v2/tenants/settings \\
  -H "authorization: Bearer \$(cat $run_dir/management-token)" \\
  -H 'content-type: application/json' \\
  -d '{"flags": {"enable_dynamic_client_registration": true}}'

2. Register a client. Answers 201 with its client_id (403 access_denied while registration is switched off).

curl -i http://localhost:$HTTP_PORT/oidc/register \\
  -H 'content-type: application/json' \\
  -d '{"client_name": "My Dynamic Application", "redirect_uris": ["https://application.example.com/callback"],
       "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
       "response_types": ["code"]}'

3. Register one that would leak its codes. Answers 400 invalid_redirect_uri and names the URI and the rule.

curl -i http://localhost:$HTTP_PORT/oidc/register \\
  -H 'content-type: application/json' \\
  -d '{"redirect_uris": ["https://application.example.com/callback", "http://application.example.com/callback"]}'

END

{ wait -n "${pids[@]}" || true; } 2>/dev/null
check_alive

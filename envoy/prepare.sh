#!/usr/bin/env bash
# Makes what a gateway needs to start, in DIR: tokens, certificates and the rendered envoy.yaml.
#
#   DCR_STORE=PATH DATABASE_URL=URL … envoy/prepare.sh DIR
#   … envoy/prepare.sh --tokens DIR           all but envoy.yaml
#   … envoy/prepare.sh --configuration DIR    envoy.yaml alone
#
# The tenant `default` (hosts localhost and 127.0.0.1) is made if there is none and localhost is free. Tokens are minted
# anew each time, the management token for the tenant of localhost; the certificate authority and the tenants' settings
# stay. Prints a line if calls to localhost will not reach `default`. Also takes render.sh's variables; the certificates
# are in DIR unless TLS_CERTIFICATE and TLS_PRIVATE_KEY say where Envoy will see them.
set -euo pipefail
here=$(dirname "$0")
part=all
case ${1:-} in --tokens | --configuration) part=$1 && shift ;; esac
dir=${1:?usage: envoy/prepare.sh [--tokens|--configuration] DIR}
store=${DCR_STORE:-dcr-store}

fail() {
    printf 'prepare: %s\n' "$1" >&2
    exit 1
}

# Complete or not at all, and for this user only.
umask 077
mkdir -p "$dir"
write() {
    local file=$1
    shift
    "$@" >"$file.new" || {
        rm -f "$file.new"
        fail "$file could not be made"
    }
    mv "$file.new" "$file"
}

make_tokens() {
    tenants=$("$store" tenant list) || fail 'the tenants could not be listed'
    # A table: the name first, the hosts last, with commas between them.
    owner_of() {
        awk -v host="$1" 'NR > 1 { for (i = 5; i <= NF; i++) { sub(/,$/, "", $i); if ($i == host) print $1 } }' <<<"$tenants"
    }
    tenant=$(owner_of localhost)
    loopback=$(owner_of 127.0.0.1)
    if [[ -n $tenant && $tenant != default ]]; then
        printf 'calls to localhost go to the tenant %s, which has that host; to free it in this database: %s tenant update %s --remove-domain localhost\n' \
            "$tenant" "$store" "$tenant"
    elif [[ -z $tenant ]]; then
        tenant=default
        if grep -q '^default ' <<<"$tenants"; then
            printf 'calls to localhost answer 404, because no tenant has that host; to change that in this database: %s tenant update default --add-domain localhost\n' \
                "$store"
        else
            domains=(--domain localhost)
            if [[ -z $loopback ]]; then
                domains+=(--domain 127.0.0.1)
            else
                printf 'calls to 127.0.0.1 go to the tenant %s, which has that host; to free it in this database: %s tenant update %s --remove-domain 127.0.0.1\n' \
                    "$loopback" "$store" "$loopback"
            fi
            "$store" tenant create default "${domains[@]}" >/dev/null || fail 'the tenant default could not be made'
        fi
    fi
    write "$dir/management-token" "$store" token --tenant "$tenant" --ttl 720h
    write "$dir/edge-token" "$store" token --kind edge --ttl 8760h
    write "$dir/server-token" "$store" token --kind server --tenant "$tenant" --ttl 8760h
    write "$dir/tenant" printf '%s\n' "$tenant"

    "$here/certificates.sh" "$dir"
}
[[ $part == --configuration ]] || make_tokens
[[ $part != --tokens ]] || exit 0

export TLS_CERTIFICATE=${TLS_CERTIFICATE:-$dir/server.pem} TLS_PRIVATE_KEY=${TLS_PRIVATE_KEY:-$dir/server-key.pem}
configuration() {
    printf '# Made from the template envoy/envoy.yaml and written anew at each start: change that file, not this one.\n\n'
    "$here/render.sh"
}
write "$dir/envoy.yaml" configuration

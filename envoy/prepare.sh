#!/usr/bin/env bash
# Makes what a gateway needs to start, in DIR: tokens, certificates and the rendered envoy.yaml.
#
#   DCR_STORE=PATH DATABASE_URL=URL … envoy/prepare.sh DIR
#
# The tenant `default` (hosts localhost and 127.0.0.1) is made if it is missing. Tokens are minted anew each time; the
# certificate authority and the tenant's settings stay. Also takes render.sh's variables; the certificates are in DIR
# unless TLS_CERTIFICATE and TLS_PRIVATE_KEY say where Envoy will see them.
set -euo pipefail
here=$(dirname "$0")
dir=${1:?usage: envoy/prepare.sh DIR}
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

"$store" tenant show default >/dev/null 2>&1 ||
    "$store" tenant create default --domain localhost --domain 127.0.0.1 >/dev/null ||
    fail 'the tenant default could not be made'
write "$dir/management-token" "$store" token --tenant default --ttl 720h
write "$dir/edge-token" "$store" token --kind edge --ttl 8760h

"$here/certificates.sh" "$dir"
export TLS_CERTIFICATE=${TLS_CERTIFICATE:-$dir/server.pem} TLS_PRIVATE_KEY=${TLS_PRIVATE_KEY:-$dir/server-key.pem}
write "$dir/envoy.yaml" "$here/render.sh"

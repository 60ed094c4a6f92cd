#!/usr/bin/env bash
# Makes the certificates with which edge and store know each other, in DIR, by an authority that vouches for nothing else.
#
#   envoy/store-certificates.sh DIR [NAME]
#
# store-ca.pem signs store.pem (for NAME, by default dcr-store; key store-key.pem) and edge.pem (key edge-key.pem). The
# authority is made once and kept; the two are made anew each time, for DAYS (397). The store takes new ones within
# seconds, an Envoy at its next start.
set -euo pipefail
dir=${1:?usage: envoy/store-certificates.sh DIR [NAME]}
name=${2:-dcr-store}
days=${DAYS:-397}

fail() {
    printf 'store-certificates: %s\n' "$1" >&2
    exit 1
}

[[ $name =~ ^[A-Za-z0-9.-]+$ ]] || fail "$name is no host name"
[[ $days =~ ^[0-9]+$ ]] || fail "DAYS=$days is not a number of days"
command -v openssl >/dev/null || fail 'openssl is missing: install it (Debian: apt install openssl)'
umask 077
# Beside the files, so that each is put into its place by a rename.
scratch=$(mktemp -d "$dir/.store-certificates.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

quietly() {
    "$@" >"$scratch/log" 2>&1 || fail "openssl failed: $(tail -n 1 "$scratch/log")"
}

new_key() {
    quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

ca=$dir/store-ca.pem ca_key=$dir/store-ca-key.pem
if [[ ! -e $ca ]]; then
    new_key "$scratch/ca-key.pem"
    quietly openssl req -x509 -new -key "$scratch/ca-key.pem" -out "$scratch/ca.pem" -days 3650 \
        -subj '/CN=dcr-edge store authority' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    mv "$scratch/ca-key.pem" "$ca_key"
    mv "$scratch/ca.pem" "$ca"
fi
[[ -e $ca_key ]] || fail "$ca_key is missing: remove $ca for a new authority"

# make FILE COMMON_NAME USE
make() {
    new_key "$scratch/$1-key.pem"
    quietly openssl req -new -key "$scratch/$1-key.pem" -subj "/CN=$2" -out "$scratch/request.pem"
    cat >"$scratch/extensions" <<END
subjectAltName = DNS:$2
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $3
authorityKeyIdentifier = keyid
END
    quietly openssl x509 -req -in "$scratch/request.pem" -CA "$ca" -CAkey "$ca_key" -days "$days" \
        -set_serial "0x$(openssl rand -hex 16)" -extfile "$scratch/extensions" -out "$scratch/$1.pem"
    mv "$scratch/$1-key.pem" "$dir/$1-key.pem"
    mv "$scratch/$1.pem" "$dir/$1.pem"
}
make store "$name" serverAuth
make edge dcr-edge clientAuth

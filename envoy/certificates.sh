#!/usr/bin/env bash
# Makes a server certificate for localhost and 127.0.0.1 in DIR: server.pem and server-key.pem, signed by ca.pem.
#
#   envoy/certificates.sh DIR
#
# The authority is made once and kept. The certificate holds 397 days and is renewed when fewer than 30 are left.
set -euo pipefail
dir=${1:?usage: envoy/certificates.sh DIR}
ca=$dir/ca.pem ca_key=$dir/ca-key.pem certificate=$dir/server.pem key=$dir/server-key.pem

fail() {
    printf 'certificates: %s\n' "$1" >&2
    exit 1
}

command -v openssl >/dev/null || fail 'openssl is missing: install it (Debian: apt install openssl)'
umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

quietly() {
    "$@" >"$scratch/log" 2>&1 || fail "openssl failed: $(tail -n 1 "$scratch/log")"
}

new_key() {
    quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

if [[ ! -e $ca ]]; then
    new_key "$ca_key"
    # Whoever trusts this authority trusts it for this machine only.
    quietly openssl req -x509 -new -key "$ca_key" -out "$scratch/ca.pem" -days 3650 \
        -subj '/CN=dcr-edge local authority' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -addext 'nameConstraints=critical,permitted;DNS:localhost,permitted;IP:127.0.0.1/255.255.255.255'
    mv "$scratch/ca.pem" "$ca"
fi
if [[ -e $certificate ]] &&
    openssl x509 -in "$certificate" -noout -checkend 2592000 >/dev/null 2>&1 &&
    openssl verify -CAfile "$ca" "$certificate" >/dev/null 2>&1; then
    exit
fi
[[ -e $ca_key ]] || fail "$ca_key is missing, and a new server certificate is due: remove $ca for a new authority"
new_key "$key"
quietly openssl req -new -key "$key" -subj '/CN=localhost' -out "$scratch/request.pem"
cat >"$scratch/extensions" <<'END'
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
END
quietly openssl x509 -req -in "$scratch/request.pem" -CA "$ca" -CAkey "$ca_key" -days 397 \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$scratch/extensions" -out "$scratch/server.pem"
mv "$scratch/server.pem" "$certificate"

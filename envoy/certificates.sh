#!/usr/bin/env bash
# Makes a server certificate for localhost and 127.0.0.1 in DIR: server.pem and server-key.pem, signed by ca.pem.
#
#   envoy/certificates.sh DIR
#
# The authority is made once and kept. The certificate holds 397 days and is renewed when fewer than 30 are left. A
# certificate that this authority has not issued is the user's: it and its key stay as they are, and only have to fit.
set -euo pipefail
dir=${1:?usage: envoy/certificates.sh DIR}
ca=$dir/ca.pem ca_key=$dir/ca-key.pem certificate=$dir/server.pem key=$dir/server-key.pem
name='dcr-edge local authority'

fail() {
    printf 'certificates: %s\n' "$1" >&2
    exit 1
}

command -v openssl >/dev/null || fail 'openssl is missing: install it (Debian: apt install openssl)'
umask 077
# Beside the files, so that each is put into its place by a rename.
scratch=$(mktemp -d "$dir/.certificates.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

quietly() {
    "$@" >"$scratch/log" 2>&1 || fail "openssl failed: $(tail -n 1 "$scratch/log")"
}

new_key() {
    quietly openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

# By the issuer's name, not by its signature: certificates of an authority that was removed are to be renewed too.
is_ours() {
    [[ $(openssl x509 -in "$certificate" -noout -issuer -nameopt RFC2253 2>/dev/null) == "issuer=CN=$name" ]]
}

# An empty passphrase, so that openssl never asks for one.
key_fits() {
    local public
    public=$(openssl pkey -in "$key" -passin pass: -pubout 2>/dev/null) &&
        [[ $public == "$(openssl x509 -in "$certificate" -noout -pubkey 2>/dev/null)" ]]
}

is_good() {
    key_fits && openssl x509 -in "$certificate" -noout -checkend 2592000 >/dev/null 2>&1 &&
        openssl verify -CAfile "$ca" "$certificate" >/dev/null 2>&1
}

if [[ -e $certificate ]] && ! is_ours; then
    key_fits || fail "$key is missing, needs a passphrase or does not belong to $certificate, which is not ours to replace: put the right key there, or remove both for new ones"
    exit
fi

if [[ ! -e $ca ]]; then
    new_key "$scratch/ca-key.pem"
    # Whoever trusts this authority trusts it for this machine only.
    quietly openssl req -x509 -new -key "$scratch/ca-key.pem" -out "$scratch/ca.pem" -days 3650 \
        -subj "/CN=$name" -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -addext 'nameConstraints=critical,permitted;DNS:localhost,permitted;IP:127.0.0.1/255.255.255.255'
    mv "$scratch/ca-key.pem" "$ca_key"
    mv "$scratch/ca.pem" "$ca"
fi
if [[ -e $certificate ]] && is_good; then
    exit
fi
[[ -e $ca_key ]] || fail "$ca_key is missing, and a new server certificate is due: remove $ca for a new authority"
if [[ -e $certificate || ! -e $key ]]; then
    new_key "$scratch/server-key.pem"
else
    # A key without a certificate may be the user's.
    openssl pkey -in "$key" -passin pass: -noout 2>/dev/null ||
        fail "$key is no private key or needs a passphrase: replace it, or remove it for a new one"
    cp "$key" "$scratch/server-key.pem"
fi
quietly openssl req -new -key "$scratch/server-key.pem" -subj '/CN=localhost' -out "$scratch/request.pem"
cat >"$scratch/extensions" <<'END'
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
END
quietly openssl x509 -req -in "$scratch/request.pem" -CA "$ca" -CAkey "$ca_key" -days 397 \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$scratch/extensions" -out "$scratch/server.pem"
# The certificate first: a start that ends in between leaves one of ours with a key that does not fit, and the next
# start repairs that.
mv "$scratch/server.pem" "$certificate"
mv "$scratch/server-key.pem" "$key"

#!/usr/bin/env bash
# Installs the registration servers that the benchmark compares with into DIR, once, and prints nothing.
#
#   tests/bench/peers.sh DIR
set -euo pipefail
dir=${1:?usage: tests/bench/peers.sh DIR}
oidc_provider=9.13.3

fail() {
    printf 'peers: %s\n' "$1" >&2
    exit 1
}

if ! { command -v node && command -v npm; } >/dev/null; then
    fail 'node or npm is missing (Debian: apt install nodejs npm): the benchmark goes without oidc-provider'
fi
mkdir -p "$dir"
cp "$(dirname "$0")/oidc-provider.mjs" "$dir/"
if ! grep -qs "\"version\": \"$oidc_provider\"" "$dir/node_modules/oidc-provider/package.json"; then
    npm install --silent --no-audit --no-fund --prefix "$dir" "oidc-provider@$oidc_provider" >&2 ||
        fail "npm could not install oidc-provider@$oidc_provider"
fi

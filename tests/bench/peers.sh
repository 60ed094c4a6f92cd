#!/usr/bin/env bash
# Installs the registration servers that the benchmark compares with into DIR, once, and prints nothing.
#
#   tests/bench/peers.sh DIR
set -euo pipefail
dir=${1:?usage: tests/bench/peers.sh DIR}
packages=(oidc-provider@9.13.3 @modelcontextprotocol/sdk@1.32.2 express@5.1.0)

fail() {
    printf 'peers: %s\n' "$1" >&2
    exit 1
}

if ! { command -v node && command -v npm; } >/dev/null; then
    fail 'node or npm is missing (Debian: apt install nodejs npm): the benchmark goes without servers on Node.js'
fi
mkdir -p "$dir"
cp "$(dirname "$0")"/*.mjs "$dir/"
if [[ $(cat "$dir/installed" 2>/dev/null) != "${packages[*]}" ]]; then
    npm install --silent --no-audit --no-fund --prefix "$dir" "${packages[@]}" >&2 ||
        fail "npm could not install ${packages[*]}"
    printf '%s\n' "${packages[*]}" >"$dir/installed"
fi

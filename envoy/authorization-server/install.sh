#!/usr/bin/env bash
# Makes the demonstration's authorization server ready to run below .tools/, once, and prints the path of its program;
# errors go to stderr. Fails where there is no Node.js that is new enough.
#
#   envoy/authorization-server/install.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/.*"oidc-provider": "\([^"]*\)".*/\1/p' "$here/package.json")
home=$(cd "$here/../.." && pwd)/.tools/authorization-server-$version

fail() {
    printf 'authorization-server: %s\n' "$1" >&2
    exit 1
}

if ! { command -v node && command -v npm; } >/dev/null; then
    fail 'node or npm is missing (Debian: apt install nodejs npm)'
fi
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
    fail "node $(node --version) is too old: it needs 20.19 or later"
mkdir -p "$home"
cp "$here"/*.mjs "$here/package.json" "$home/"
if ! cmp -s "$here/package.json" "$home/installed.json"; then
    printf 'authorization-server: installing oidc-provider %s into %s (once)\n' "$version" "${home#"$PWD"/}" >&2
    npm install --silent --no-audit --no-fund --ignore-scripts --omit=dev --prefix "$home" >&2 ||
        fail "npm could not install oidc-provider $version"
    # Last, so that what was interrupted is done again.
    cp "$here/package.json" "$home/installed.json"
fi
printf '%s\n' "$home/server.mjs"

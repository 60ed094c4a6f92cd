#!/usr/bin/env bash
# Prints the folder with the package `auth0` of npm, the SDK of the Management API, below its node_modules; errors go to
# stderr. Prints nothing where there is no Node.js: what needs it is skipped then, and fails where CI is set.
#
#   tests/clients/auth0.sh VERSION
set -euo pipefail
version=${1:?usage: tests/clients/auth0.sh VERSION}
home=$(cd "$(dirname "$0")/../.." && pwd)/.tools/auth0-$version

if ! { command -v node && command -v npm; } >/dev/null; then
    printf 'auth0: node or npm is missing (Debian: apt install nodejs npm): tests of the SDK are skipped\n' >&2
    [[ -z ${CI:-} ]] && exit 0
    exit 1
fi
if ! grep -qs "\"version\": \"$version\"" "$home/node_modules/auth0/package.json"; then
    printf 'auth0: installing auth0 %s into %s (once)\n' "$version" "${home#"$PWD"/}" >&2
    mkdir -p "$home"
    npm install --silent --no-audit --no-fund --prefix "$home" "auth0@$version" >&2 || {
        printf 'auth0: npm could not install auth0@%s\n' "$version" >&2
        exit 1
    }
fi
printf '%s\n' "$home"

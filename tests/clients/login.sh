#!/usr/bin/env bash
# Prints the folder of the clients whose logins the tests prove: their scripts, and their packages of npm below it; errors
# go to stderr. Prints nothing where there is no Node.js: what needs it is skipped then, and fails where CI is set.
set -euo pipefail
here=$(cd "$(dirname "$0")/login" && pwd)
home=$(cd "$here/../../.." && pwd)/.tools/login-clients

if ! { command -v node && command -v npm; } >/dev/null; then
    printf 'login: node or npm is missing (Debian: apt install nodejs npm): tests of real clients are skipped\n' >&2
    [[ -z ${CI:-} ]] && exit 0
    exit 1
fi
mkdir -p "$home"
if ! cmp -s "$here/package.json" "$home/installed.json"; then
    printf 'login: installing openid-client, the MCP SDK, playwright-core and axe-core into %s (once)\n' "${home#"$PWD"/}" >&2
    cp "$here/package.json" "$home/"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$home" >&2 || {
        printf 'login: npm could not install the clients\n' >&2
        exit 1
    }
    # Last, so that what was interrupted is done again.
    cp "$here/package.json" "$home/installed.json"
fi
cp "$here"/*.mjs "$home/"
printf '%s\n' "$home"

#!/usr/bin/env bash
# Prints the path of `schemathesis` of PyPI, which holds the Management API to its OpenAPI description; errors go to
# stderr. Prints nothing where there is no Python: what needs it is skipped then, and fails where CI is set.
#
#   tests/support/schemathesis.sh VERSION
#
# It is in a virtual environment under .tools/, made once.
set -euo pipefail
version=${1:?usage: tests/support/schemathesis.sh VERSION}
tools=$(cd "$(dirname "$0")/../.." && pwd)/.tools
home=$tools/schemathesis-$version

fail() {
    printf 'schemathesis: %s\n' "$1" >&2
    exit 1
}

if ! command -v python3 >/dev/null; then
    printf 'schemathesis: python3 is missing (Debian: apt install python3 python3-venv): its test is skipped\n' >&2
    [[ -z ${CI:-} ]] && exit 0
    exit 1
fi
# What a run left that was stopped is made complete: the package that is looked for is the last that pip installs.
if ! "$home/bin/python3" -c 'import schemathesis' 2>/dev/null; then
    printf 'schemathesis: installing schemathesis %s into %s (once)\n' "$version" "${home#"$PWD"/}" >&2
    { python3 -m venv "$home" && "$home/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input \
        "schemathesis==$version"; } >&2 || fail "schemathesis==$version could not be installed"
fi
printf '%s\n' "$home/bin/schemathesis"

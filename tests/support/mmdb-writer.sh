#!/usr/bin/env bash
# Prints the path of a Python that has `mmdb_writer` of PyPI, for the databases of the tests; errors go to stderr.
#
#   tests/support/mmdb-writer.sh VERSION
#
# It is a virtual environment under .tools/, made once.
set -euo pipefail
version=${1:?usage: tests/support/mmdb-writer.sh VERSION}
tools=$(cd "$(dirname "$0")/../.." && pwd)/.tools
home=$tools/mmdb-writer-$version

fail() {
    printf 'mmdb-writer: %s\n' "$1" >&2
    exit 1
}

# What a run left that was stopped is made complete: the package that is looked for is the last that pip installs.
if ! "$home/bin/python3" -c 'import mmdb_writer' 2>/dev/null; then
    command -v python3 >/dev/null || fail 'python3 is missing: install it (Debian: apt install python3 python3-venv)'
    printf 'mmdb-writer: installing mmdb_writer %s into %s (once)\n' "$version" "${home#"$PWD"/}" >&2
    { python3 -m venv "$home" && "$home/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input \
        "mmdb_writer==$version"; } >&2 || fail "mmdb_writer==$version could not be installed"
fi
printf '%s\n' "$home/bin/python3"

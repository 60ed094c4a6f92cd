#!/usr/bin/env bash
# Prints the path of Valgrind, which it installs where it may; errors go to stderr. Prints nothing where there is none: what
# needs it is skipped then, and fails where CI is set.
set -euo pipefail

install_it() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    printf 'valgrind: installing it with apt-get (once)\n' >&2
    local install=(apt-get install --yes --quiet --quiet --no-install-recommends valgrind)
    export DEBIAN_FRONTEND=noninteractive
    "${install[@]}" >/dev/null 2>&1 || { apt-get update --quiet --quiet >&2 && "${install[@]}" >/dev/null; }
}

if ! command -v valgrind && ! { install_it && command -v valgrind; }; then
    printf 'valgrind: there is none (Debian: apt install valgrind): the budget of instructions is not checked\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

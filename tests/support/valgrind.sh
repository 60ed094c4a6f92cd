#!/usr/bin/env bash
# Prints the path of Valgrind, which it installs where it may; errors go to stderr. Prints nothing where there is none: what
# needs it is skipped then, and fails where CI is set.
set -euo pipefail

if ! command -v valgrind && ! { "${0%/*}/apt-install.sh" valgrind && command -v valgrind; }; then
    printf 'valgrind: there is none (Debian: apt install valgrind): the budget of instructions is not checked\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

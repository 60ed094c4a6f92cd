#!/usr/bin/env bash
# Prints the path of a Chromium, which it installs where it may; errors go to stderr. Prints nothing where there is none:
# what needs it is skipped then, and fails where CI is set.
set -euo pipefail

find_it() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" && return
    done
    return 1
}

install_it() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    printf 'chromium: installing it with apt-get (once)\n' >&2
    local install=(apt-get install --yes --quiet --quiet --no-install-recommends chromium)
    export DEBIAN_FRONTEND=noninteractive
    "${install[@]}" >/dev/null 2>&1 || { apt-get update --quiet --quiet >&2 && "${install[@]}" >/dev/null; }
}

if ! find_it && ! { install_it && find_it; }; then
    printf 'chromium: there is none (Debian: apt install chromium): the test with a browser is skipped\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

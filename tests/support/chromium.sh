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

if ! find_it && ! { "${0%/*}/apt-install.sh" chromium && find_it; }; then
    printf 'chromium: there is none (Debian: apt install chromium): the test with a browser is skipped\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

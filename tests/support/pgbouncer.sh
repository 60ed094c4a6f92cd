#!/usr/bin/env bash
# Prints the path of a PgBouncer; errors go to stderr. Where there is none it unpacks Debian's package, without installing
# it: that would start a service. Prints nothing where that fails: what needs it is skipped then, and fails where CI is set.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$PWD/.tools/pgbouncer

find_it() {
    PATH=$PATH:/usr/sbin command -v pgbouncer || { [[ -x $home/pgbouncer ]] && printf '%s\n' "$home/pgbouncer"; }
}

fetch_it() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    printf 'pgbouncer: unpacking it into .tools (once)\n' >&2
    local folder
    folder=$(mktemp -d "$home.XXXXXX")
    # shellcheck disable=SC2064 # now, where it has its name
    trap "rm -rf '$folder'" EXIT
    # So that apt's own user may write there.
    chmod 755 "$folder"
    (
        cd "$folder"
        local packages=(pgbouncer libc-ares2)
        apt-get download --quiet --quiet "${packages[@]}" >&2 2>/dev/null || {
            [[ $(id -u) == 0 ]] && apt-get update --quiet --quiet >&2 && apt-get download --quiet --quiet "${packages[@]}" >&2
        }
        local package
        for package in *.deb; do dpkg -x "$package" .; done
        rm -- *.deb
    ) || return 1
    # shellcheck disable=SC2016 # for the other shell
    printf '#!/bin/sh\nhere=$(dirname "$0")\nLD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu) exec "$here/usr/sbin/pgbouncer" "$@"\n' \
        >"$folder/pgbouncer"
    chmod 755 "$folder/pgbouncer"
    # Another call may have been faster.
    mv --no-target-directory "$folder" "$home" 2>/dev/null || [[ -x $home/pgbouncer ]]
}

mkdir -p .tools
if ! find_it && ! { fetch_it && find_it; }; then
    printf 'pgbouncer: there is none (Debian: apt install pgbouncer): the test with it is skipped\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

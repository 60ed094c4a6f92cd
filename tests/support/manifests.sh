#!/usr/bin/env bash
# Prints the path of a Python with PyYAML and jsonschema of these versions, installing them into .tools/; errors go to
# stderr.
#
#   tests/support/manifests.sh PYYAML_VERSION JSONSCHEMA_VERSION
set -euo pipefail
home=$(cd "$(dirname "$0")/../.." && pwd)/.tools/manifests-$1-$2

if [[ ! -e $home/installed ]]; then
    command -v python3 >/dev/null || {
        printf 'manifests: python3 is missing, and with it the checks of manifests\n' >&2
        exit 1
    }
    printf 'manifests: installing PyYAML %s and jsonschema %s into %s (once)\n' "$1" "$2" "${home#"$PWD"/}" >&2
    if ! { python3 -m venv "$home" && "$home/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input \
        "pyyaml==$1" "jsonschema==$2"; } >&2; then
        printf 'manifests: they could not be installed\n' >&2
        exit 1
    fi
    touch "$home/installed"
fi
printf '%s\n' "$home/bin/python3"

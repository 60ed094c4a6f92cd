#!/usr/bin/env bash
# Installs a package of Debian where it may; errors go to stderr.
#
#   tests/support/apt-install.sh PACKAGE
set -euo pipefail
package=${1:?usage: tests/support/apt-install.sh PACKAGE}

[[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || exit 1
printf '%s: installing it with apt-get (once)\n' "$package" >&2
install=(apt-get install --yes --quiet --quiet --no-install-recommends "$package")
export DEBIAN_FRONTEND=noninteractive
"${install[@]}" >/dev/null 2>&1 || { apt-get update --quiet --quiet >&2 && "${install[@]}" >/dev/null; }

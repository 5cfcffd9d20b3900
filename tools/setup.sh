#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the Debian packages that the make targets need and that are not there yet. With SETUP_FOR
# (demo or test) it says first what all of that target needs, and what it reuses.
set -euo pipefail
cd "$(dirname "$0")/.."
apt_install=$PWD/tools/apt_install.sh

# The packages of these lists that are not installed
missing() {
    local package
    sed -e 's/#.*//' -e '/^ *$/d' "$@" | while read -r package; do
        # shellcheck disable=SC2016  # the braces are dpkg-query's
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

mapfile -t needed < <(missing requirements/debian.txt)
mapfile -t all < <(missing requirements/debian.txt lab/packages.txt)

if [ ${#needed[@]} -gt 0 ]; then
    root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: this user may not install packages and there is no sudo; as root: apt-get install ${all[*]}" >&2
            exit 1
        fi
        root=(sudo)
    fi
    echo "setup: asking apt what ${all[*]} need"
    "${root[@]}" apt-get -q update >/dev/null
fi
[ -z "${SETUP_FOR:-}" ] || tools/plan.sh "$SETUP_FOR" "${all[@]}"
[ ${#needed[@]} -eq 0 ] || "${root[@]}" "$apt_install" setup "${needed[@]}"

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

# With sudo unless we are root
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: this user may not do it and there is no sudo; as root: $*" >&2
        return 1
    fi
}

mapfile -t needed < <(missing requirements/debian.txt)
mapfile -t all < <(missing requirements/debian.txt lab/packages.txt)

# apt that knows nothing cannot fetch what is only unpacked, promtool and other clangs, either
if [ ${#needed[@]} -gt 0 ] || ! apt-cache show clang >/dev/null 2>&1; then
    echo "setup: asking apt what there is (apt-get update)"
    as_root apt-get -q update >/dev/null
fi
[ -z "${SETUP_FOR:-}" ] || tools/plan.sh "$SETUP_FOR" "${all[@]}"
[ ${#needed[@]} -eq 0 ] || as_root "$apt_install" setup "${needed[@]}"

# Some chroots and containers bring /dev without what belongs on it. Python's semaphores, and so
# Ansible, need it.
if [ -d /dev/shm ] && [ ! -w /dev/shm ]; then
    echo 'setup: this user may not write to /dev/shm, which Ansible needs: chmod 1777 /dev/shm'
    as_root chmod 1777 /dev/shm
fi

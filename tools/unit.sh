#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The unit tests, and at the end one line about what was run and what was not: tools/unit.sh [PYTEST'S ARGUMENTS]
#
# Some need root (marker needs_root): an ordinary user is asked once for sudo's password, at the start, and they run
# first. Without sudo, without a terminal to ask on, or with UNIT_SUDO=no, they are left out.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Nothing that root leaves here may be in the user's way afterwards
as_root() {
    local scratch status
    scratch=$(mktemp -d)
    PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$scratch/hypothesis \
        .venv/bin/pytest -o cache_dir="$scratch/cache" "$@"
    status=$?
    rm -rf "$scratch"
    find . -xdev -user root -exec chown -h --reference=. {} +
    return $status
}

sudo_works() {
    [ "${UNIT_SUDO:-yes}" != no ] && command -v sudo >/dev/null || return
    sudo -n true 2>/dev/null && return
    # make gives only one of several jobs its standard input; sudo asks on the terminal itself
    { true </dev/tty; } 2>/dev/null &&
        sudo -v -p 'unit: some tests need root; password of %p (or UNIT_SUDO=no): '
}

if [ "$(id -u)" -eq 0 ]; then
    if [ -n "${SUDO_UID:-}" ] && [ "$SUDO_UID" != 0 ]; then
        as_root "$@"
    else
        .venv/bin/pytest "$@"
    fi
    exit
fi

status=0
if sudo_works; then
    echo 'unit: the tests that need root, by sudo'
    sudo "$0" -m needs_root "$@" || status=$?
    echo 'unit: all others'
    .venv/bin/pytest -m 'not needs_root' "$@" || status=$?
else
    .venv/bin/pytest "$@" || status=$?
fi
exit $status

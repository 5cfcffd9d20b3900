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

# Tests make mounts of their own, which the kernel refuses in a chroot whose root is no mount: then
# everything runs in one whose root is
in_a_mount() {
    local place status=0
    place=$(mktemp -d)
    # shellcheck disable=SC2016  # the inner shell's
    unshare --mount --propagation unchanged sh -euc '
        mount --rbind / "$1"
        mount --make-rprivate "$1"
        exec chroot "$@"' in_a_mount "$place" "$PWD/tools/unit.sh" "$@" || status=$?
    # Where mounts are shared, the first one was seen outside, too
    ! mountpoint -q "$place" || umount --recursive --lazy "$place"
    rmdir "$place"
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
    if ! unshare --mount true 2>/dev/null && [ -z "${UNIT_IN_A_MOUNT:-}" ]; then
        UNIT_IN_A_MOUNT=1 in_a_mount "$@"
    elif [ -n "${SUDO_UID:-}" ] && [ "$SUDO_UID" != 0 ]; then
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

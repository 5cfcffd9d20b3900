#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a command in which sudo asks for a password once at most, however long it takes.
set -euo pipefail
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null && ! sudo -n true 2>/dev/null; then
    echo 'sudo installs packages, builds the disks of guests, and runs the tests that need root.'
    if sudo -v; then
        # Who reads our output need not wait for the last sleep
        while sleep 50; do sudo -n -v || exit 0; done >/dev/null 2>&1 &
        # shellcheck disable=SC2064  # this process, now
        trap "kill $!" EXIT
    fi
fi
"$@"

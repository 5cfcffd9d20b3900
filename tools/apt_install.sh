#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# As root: installs packages, and says on stderr what comes and how far it is:
#   tools/apt_install.sh WHO [APT-OPTIONS...] PACKAGES...
set -euo pipefail
who=$1
shift
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

# DPkg::Lock::Timeout: wait for another apt run instead of failing
apt=(apt-get -q -o DPkg::Lock::Timeout=600 install --no-install-recommends)
number=$("${apt[@]}" --assume-no "$@" 2>&1 | sed -n 's/.* \([0-9]*\) newly installed.*/\1/p') || true
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Each package is fetched, unpacked and set up
"${apt[@]}" --assume-yes "$@" 2>&1 | tee "$log" | awk -v who="$who" -v number="${number:-0}" '
    /^Get:/ { doing = "fetching" }
    /^Unpacking / { doing = "unpacking" }
    /^Setting up / { doing = "setting up" }
    /^(Get:|Unpacking |Setting up )/ && number {
        percent = ++steps * 100 / (3 * number)
        if (percent >= told + 20 && percent <= 100) {
            told = int(percent / 20) * 20
            printf "%s: %d packages: %d %%, %s\n", who, number, told, doing
            fflush()
        }
    }' >&2 || {
    tail -n 15 "$log" >&2
    echo "$who: apt-get could not install what is needed (its last words are above)" >&2
    exit 1
}

#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What a newcomer sees: a minimal Debian in a folder, an ordinary user who may use sudo, a clone of HEAD
# in the home, and a command that has to pass there:
#   tools/fresh.sh 'bookworm trixie' 'make demo'
# FRESH_USER=root: as root. FRESH_FOLDER: where (default: build/fresh); a system is removed after it passed.
set -euo pipefail
cd "$(dirname "$0")/.."
suites=$1 command=$2
user=${FRESH_USER:-newcomer}
base=${FRESH_FOLDER:-$PWD/build/fresh}

if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "fresh: needs root to make a system in a folder, and sudo is missing: run it as root" >&2
        exit 1
    }
    exec sudo env FRESH_USER="$user" FRESH_FOLDER="$base" "$0" "$@"
fi
PATH=$PATH:/usr/sbin:/sbin
command -v debootstrap >/dev/null || {
    echo "fresh: debootstrap is missing: run 'make lab-setup', or install it" >&2
    exit 1
}

# What runs in a system, with mounts and processes that end with it: guests that were left running too
inside() { # ROOT COMMAND...
    # shellcheck disable=SC2016  # the inner shell's
    unshare --mount --propagation private --pid --fork --kill-child bash -euc '
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount --rbind /sys "$1/sys"
        mount --rbind /dev "$1/dev"
        exec chroot "$@"' inside "$@"
}

# Debian's archives as this machine reaches them, as main and security
archives() {
    PYTHONPATH=$PWD python3 -c '
from lab.apt_sources import machine_mirror
mirror = machine_mirror()
print(mirror.main, mirror.security or "-", mirror.keyring)'
}

make_system() { # SUITE FOLDER
    local suite=$1 root=$2 main security keyring script file
    read -r main security keyring < <(archives)
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    debootstrap --variant=minbase --keyring="$keyring" --include=sudo,git,make,ca-certificates \
        "$suite" "$root" "$main" "$script" >"$root.log" 2>&1 || {
        tail -n 5 "$root.log" >&2
        echo "fresh: no system was made of $suite (see above)" >&2
        return 1
    }
    {
        echo "deb $main $suite main"
        echo "deb $main $suite-updates main"
        [ "$security" = - ] || echo "deb $security $suite-security main"
    } >"$root/etc/apt/sources.list"
    # How this machine reaches the archives of Debian and Python is no part of what is tried
    for file in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/99* /etc/pip.conf /etc/xdg/pip \
        /etc/resolv.conf /etc/hosts /etc/ssl/certs /usr/local/share/ca-certificates; do
        [ ! -e "$file" ] || cp -rL --parents "$file" "$root" 2>/dev/null || true
    done
    env | grep -E '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|PROXY|TRUSTED_HOST)|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY)=' \
        >"$root/etc/environment" || true
    chroot "$root" useradd --create-home --shell /bin/bash newcomer
    for file in ~/.config/pip ~/.pip; do
        [ ! -e "$file" ] || {
            mkdir -p "$root/home/newcomer/.config"
            cp -r "$file" "$root/home/newcomer/.config/"
        }
    done
    echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/newcomer"
}

try() { # SUITE
    local suite=$1 root=$base/$1 begin status=0 as=(sudo -u "$user" -H) home=/home/newcomer/project
    rm -rf --one-file-system "$root"
    mkdir -p "$base"
    echo "fresh: $suite: making the system"
    make_system "$suite" "$root"
    git clone --quiet --no-hardlinks . "$root$home"
    chroot "$root" chown -R "$user": "$home"
    [ "$user" != root ] || as=()
    echo "fresh: $suite: $user runs: $command"
    begin=$(date +%s)
    inside "$root" "${as[@]}" bash -lc "set -a; . /etc/environment; cd $home && $command" || status=$?
    echo "fresh: $suite: '$command' ended with $status after $(($(date +%s) - begin)) s;" \
        "the system takes $(du -smx "$root" | cut -f 1) MB"
    [ "$status" -ne 0 ] || rm -rf --one-file-system "$root"
    return "$status"
}

for suite in $suites; do
    try "$suite"
done

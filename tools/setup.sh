#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the Debian packages that the make targets need and that are not there yet.
set -eu

packages='python3-venv clang clang-format llvm libbpf-dev libbpf1 bpftool conntrack iproute2 nftables curl gcc git make shellcheck'

missing=
for package in $packages; do
    # shellcheck disable=SC2016  # the braces are dpkg-query's
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    root=
elif command -v sudo >/dev/null; then
    root='sudo'
else
    echo "setup: install these packages as root:$missing" >&2
    exit 1
fi

# DPkg::Lock::Timeout: wait for another apt run instead of failing
apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600"
echo "setup: installing$missing"
$apt update >/dev/null
# shellcheck disable=SC2086  # both are lists of words
$apt install --no-install-recommends $missing >/dev/null

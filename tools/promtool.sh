#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Gets promtool out of Debian's package prometheus, without a service, an account and ten more packages:
#   tools/promtool.sh build/tools/promtool
set -eu

target=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if ! (cd "$folder" && apt-get -q download prometheus >log 2>&1); then
    cat "$folder/log" >&2
    echo "promtool: apt cannot get the package prometheus: run 'apt-get update' as root, and try again" >&2
    exit 1
fi
dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -xf - -C "$folder" ./usr/bin/promtool
mkdir -p "${target%/*}"
# Its time is the package's: older than this script
touch "$folder/usr/bin/promtool"
mv "$folder/usr/bin/promtool" "$target"

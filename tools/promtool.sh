#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Gets promtool out of Debian's package, as any user: tools/promtool.sh build/tools/promtool
# Debian 13 has a package of that name. In Debian 12 it comes with the server, whose installation would
# bring a service, an account and ten more packages.
set -eu

target=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

package=promtool
apt-cache show "$package" >/dev/null 2>&1 || package=prometheus
if ! (cd "$folder" && apt-get -q download "$package" >log 2>&1); then
    cat "$folder/log" >&2
    echo "promtool: apt cannot get the package $package: run 'apt-get update' as root, and try again" >&2
    exit 1
fi
dpkg-deb --fsys-tarfile "$folder/$package"_*.deb | tar -xf - -C "$folder" ./usr/bin/promtool
mkdir -p "${target%/*}"
# The package's file is older than this script, and make would get it again
touch "$folder/usr/bin/promtool"
mv "$folder/usr/bin/promtool" "$target"

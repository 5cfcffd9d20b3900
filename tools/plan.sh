#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Says what `make demo` or `make test` is about to do to this machine:
#   tools/plan.sh demo|test [MISSING-PACKAGES...]
set -euo pipefail
target=$1
shift
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/btfleet

say() { echo "$target: $*"; }

# Sizes and times as measured on a machine with two processors and no kvm
case $target in
demo)
    images=${HOST:-debian12}
    first='3 to 8 minutes' again='2 minutes'
    ;;
test)
    images='debian12 debian13'
    first='35 to 45 minutes' again='30 minutes'
    ;;
esac

new='' reused=''
if [ $# -gt 0 ]; then
    simulated=$(LC_ALL=C apt-get -q -o Debug::NoLocking=1 --assume-no \
        --no-install-recommends install "$@" 2>&1 || true)
    number=$(sed -n 's/.* \([0-9]*\) newly installed.*/\1/p' <<<"$simulated")
    download=$(sed -n 's/^Need to get \(.*\) of archives.*/\1/p' <<<"$simulated")
    space=$(sed -n 's/^After this operation, \(.*\) of additional.*/\1/p' <<<"$simulated")
    say "installs about ${number:-$#} Debian packages (${download:-?} to fetch, ${space:-?} on disk): $*"
    new=1
else
    reused+=', the Debian packages'
fi
if [ -e .venv/.ready ]; then
    reused+=', .venv'
else
    say "makes .venv: 100 Python packages from requirements/dev.txt, 400 MB"
    new=1
fi
for image in $images; do
    if compgen -G "$cache/images/$image-????????????????/disk.img" >/dev/null; then
        reused+=", the image of $image"
    else
        say "builds the disk image of $image in $cache: 700 MB"
        new=1
    fi
done
if [ "$target" = test ] && [ ! -d "$cache/clang" ]; then
    say "unpacks this Debian's other versions of clang in $cache: 1 GB"
    new=1
fi
[ -z "$reused" ] || say "reuses${reused#,}"
if [ -n "$new" ]; then say "takes about $first"; else say "takes about $again"; fi

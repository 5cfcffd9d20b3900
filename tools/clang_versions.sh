#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Compiles the object with every clang, from 14 on, that this Debian has, and shows the outcome to this
# kernel's verifier. Nothing is installed: the packages are unpacked into the cache, as the user who calls.
set -eu
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/btfleet/clang

# Fetches and unpacks version $1 to folder $2
unpack() {
    work=$(mktemp -d "$cache/.unpacking-XXXXXX")
    # apt's own user is not allowed into a home folder, and says so
    (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download \
        "clang-$1" "libclang-cpp$1" "libllvm$1" "libclang-common-$1-dev" "llvm-$1" >log 2>&1) || {
        cat "$work/log" >&2
        rm -rf "$work"
        echo "clang_versions: clang-$1 cannot be fetched (see above): run 'apt-get update' as root" >&2
        return 1
    }
    for package in "$work"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work" --wildcards \
            './usr/lib/llvm-*/bin/clang' './usr/lib/llvm-*/bin/llvm-strip' \
            './usr/lib/llvm-*/bin/llvm-objcopy' './usr/lib/llvm-*/lib/*.so*' \
            './usr/lib/llvm-*/lib/clang' './usr/lib/*-linux-gnu/lib*.so*' 2>/dev/null || true
    done
    rm -f "$work"/*.deb
    mv "$work" "$2"
}

mkdir -p "$cache"
tried='' kept=''
for version in $(apt-cache pkgnames clang- | sed -n 's/^clang-\([0-9]*\)$/\1/p' | sort -n); do
    [ "$version" -ge 14 ] || continue
    candidate=$(apt-cache policy "clang-$version" | sed -n 's/^  Candidate: \([0-9].*\)/\1/p')
    [ -n "$candidate" ] || continue
    folder=$cache/${candidate#*:} # a colon would part LD_LIBRARY_PATH
    [ -d "$folder" ] || unpack "$version" "$folder"
    bin=$folder/usr/lib/llvm-$version/bin
    libraries=$(find "$folder/usr/lib" -maxdepth 1 -name '*-linux-gnu'):$folder/usr/lib/llvm-$version/lib
    rm -rf "build/clang/$version"
    LD_LIBRARY_PATH=$libraries make --silent -B -C bpf CLANG="$bin/clang" \
        LLVM_STRIP="$bin/llvm-strip" OUT="../build/clang/$version" >/dev/null
    tried="$tried $version" kept="$kept $folder"
done
[ -n "$tried" ] || {
    echo "clang_versions: apt knows no clang: run 'apt-get update' as root" >&2
    exit 1
}
for folder in "$cache"/*; do
    case " $kept " in
    *" $folder "*) ;;
    *) rm -rf "$folder" ;; # a version before the newest
    esac
done
echo "clang_versions: the object compiles with clang$tried"
.venv/bin/python -m tools.verify_objects build/clang/*/"conntrack-$(uname -m).bpf.o"

#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes a virtual environment with the newest fitting Python that can be found, once:
#   tools/venv.sh FOLDER 'PYTHONS, best first' PIP-ARGUMENTS
set -eu

folder=$1 pythons=$2
shift 2

for python in $pythons; do
    # a launcher can be on PATH without a working interpreter, or without venv's parts behind it
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "venv: $folder with $("$python" --version); a minute or two where pip has to fetch"
        "$python" -m venv --clear "$folder"
        "$folder/bin/pip" install -qq --disable-pip-version-check "$@"
        exit 0
    fi
done
echo "venv: $folder needs one of $pythons with the venv module on PATH" >&2
exit 1

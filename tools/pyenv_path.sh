# shellcheck shell=sh
# SPDX-License-Identifier: GPL-3.0-or-later
# To be sourced: puts the interpreters that pyenv holds, if there is one, on PATH. Its launchers are
# there anyway, but stand for interpreters that are not switched on.
if command -v pyenv >/dev/null; then
    for folder in "$(pyenv root)"/versions/*/bin; do
        [ -d "$folder" ] && PATH=$folder:$PATH
    done
fi

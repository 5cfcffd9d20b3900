#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test sanity, without ignore files, on every Python that can be found here:
#   tools/sanity.sh [CORE]   CORE: another ansible-core than .venv's, as in 2.17
set -euo pipefail
cd "$(dirname "$0")/.."

if compgen -G 'tests/sanity/ignore-*.txt' >/dev/null; then
    echo 'sanity: ignore files are not wanted: mend what they hide' >&2
    exit 1
fi

# shellcheck source=tools/pyenv_path.sh
. tools/pyenv_path.sh

core=${1:-}
case $core in
'') environment=.venv ;;
2.17) pythons='python3.12 python3.11' ;;
2.18 | 2.19) pythons='python3.13 python3.12 python3.11' ;;
*) pythons='python3.14 python3.13 python3.12' ;;
esac
if [ -n "$core" ]; then
    environment=build/core-$core
    [ -x "$environment/bin/ansible-test" ] ||
        tools/venv.sh "$environment" "$pythons" "ansible-core==$core.*"
fi
export PATH=$PWD/$environment/bin:$PATH

# ansible-test wants the collection at .../ansible_collections/btfleet/conntrack, and no link there:
# a copy of what git knows or would take. tests/output holds its environment and stays.
copy=build/sanity/core-${core:-default}/ansible_collections/btfleet/conntrack
mkdir -p "$copy"
find "$copy" -mindepth 1 -not -path "$copy/tests" -not -path "$copy/tests/output*" -delete
git ls-files -z --cached --others --exclude-standard --deduplicate |
    tar --create --null --no-recursion --ignore-failed-read --files-from - 2>/dev/null |
    tar --extract --directory "$copy"
# it asks git which files there are
git -C "$copy" init --quiet
git -C "$copy" add --all

# It makes its environments without pip and would download a script that brings it. Python's own
# ensurepip does the same without a download, so that only the package index is needed.
scripts=$(
    python - <<'END'
import os.path
from ansible_test._internal import python_requirements
with open(python_requirements.__file__, encoding="utf-8") as source:
    versions = {line.split("'")[1] for line in source if line.strip().startswith("pip='")}
for version in versions:
    name = "get_pip_%s.py" % version.replace(".", "_")
    print(os.path.join(os.path.expanduser("~/.ansible/test/cache"), name))
END
)
while read -r script; do
    [ -e "$script" ] && continue
    mkdir -p "$(dirname "$script")"
    cat >"$script" <<'END'
# Written by btfleet.conntrack's tools/sanity.sh in place of get-pip.py.
import subprocess
import sys

options = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
subprocess.check_call([sys.executable, "-m", "pip", "install"] + options)
END
done <<<"$scripts"

# It compiles and imports on each Python that it finds, and passes over the others in silence
versions=$(
    python - <<'END'
import shutil
from ansible_test._util.target.common import constants
versions = constants.REMOTE_ONLY_PYTHON_VERSIONS + constants.CONTROLLER_PYTHON_VERSIONS
found = [version for version in versions if shutil.which("python" + version)]
print("compiled and imported on Python " + ", ".join(found))
left_out = [version for version in versions if version not in found]
if left_out:
    print("not on " + ", ".join(left_out) + ": this machine has no such interpreter on PATH")
END
)

# It keeps its environments in the home folder, and two runs break each other's
exec 9>"$HOME/.ansible/test/sanity.lock"
flock --nonblock 9 || {
    echo 'sanity: waits for another run of this user'
    flock 9
}

cd "$copy"
ansible-test sanity --venv --color no
while read -r line; do
    echo "sanity: ansible-core ${core:-of .venv}: $line"
done <<<"$versions"

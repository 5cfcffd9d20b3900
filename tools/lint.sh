#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs every linter and fails at the end if one of them did, so that one run shows everything.
# .venv/bin has to be on PATH, as make puts it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=()

check() {
    local name=$1
    shift
    echo "lint: $name"
    "$@" || failed+=("$name")
}

# Files that git knows or would take, that are really there, and match one of the patterns.
files() {
    git ls-files -z --cached --others --exclude-standard --deduplicate -- "$@" |
        while IFS= read -r -d '' file; do
            [ -f "$file" ] && printf '%s\0' "$file"
        done
}

# Typed code, as the names that it is imported by. A folder with Python in it is never left out:
# whatever is not listed under `known` makes this fail.
types() {
    local known=(agent benchmarks demo lab molecule plugins tests tools) paths=() top
    local checkout=build/collections/ansible_collections/btfleet/conntrack
    while read -r top; do
        case " ${known[*]} " in
        *" $top "*) ;;
        *)
            echo "lint: no type check is set up for the Python code in $top/" >&2
            return 1
            ;;
        esac
        case $top in
        # by the collection's name, or relative imports would not agree with Ansible's
        plugins) paths+=("$checkout/plugins") ;;
        *) paths+=("$top") ;;
        esac
    done < <(files '*.py' | tr '\0' '\n' | cut -d / -f 1 | sort -u)
    # second names of files that are checked already, and generated ones
    mypy --exclude '^agent/btfleet/(_kernel|_config|config|agent)/' "${paths[@]}"
}

c_style() {
    local sources
    mapfile -d '' sources < <(files 'bpf/*.c' 'bpf/*.h')
    [ ${#sources[@]} -eq 0 ] || clang-format --dry-run -Werror "${sources[@]}"
}

shell() {
    local scripts
    mapfile -d '' scripts < <(files '*.sh' '.ci/run')
    shellcheck "${scripts[@]}"
}

check 'ruff check' ruff check --quiet
check 'ruff format' ruff format --check --quiet
check 'mypy' types
check 'house' python tools/check_house.py
check 'protos' buf lint
check 'yamllint' yamllint --strict .
check 'ansible-lint' ansible-lint -q --nocolor
check 'role specs' python tools/check_role_specs.py
check 'changelog' antsibull-changelog lint
check 'clang-format' c_style
check 'shellcheck' shell

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo 'lint: passed'

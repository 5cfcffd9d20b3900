#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The main job on a real kernel: boots a guest, rolls the tracker out to it, makes NATed traffic, and
# shows each translation beside what conntrack says. Fails if they do not agree.
set -euo pipefail
cd "$(dirname "$0")/.."
host=${HOST:-debian12}
python=.venv/bin/python

say() { printf '\n== %s\n' "$*"; }

say "1. A fresh $host guest"
"$python" -m lab up "$host"

say '2. Roll out: ansible-playbook -i build/lab/inventory.yml btfleet.conntrack.rollout'
.venv/bin/ansible-playbook -i build/lab/inventory.yml --limit "$host" \
    -e conntracker_soak_seconds=5 btfleet.conntrack.rollout

say '3. NATed connections through a router, as the tracker and as conntrack see them'
"$python" -m lab ssh "$host" python3 - <tools/demo_traffic.py

say '4. The tracker now'
"$python" -m lab ssh "$host" btfleet status

say "Done. The guest still runs: $python -m lab ssh $host; make lab-down stops it."

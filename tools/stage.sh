#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a command and says how long it took: tools/stage.sh NAME COMMAND...
name=$1
shift
begin=$(date +%s)
"$@"
status=$?
passed=$(($(date +%s) - begin))
echo "stage: $name: $((passed / 60)) min $((passed % 60)) s, status $status"
exit $status

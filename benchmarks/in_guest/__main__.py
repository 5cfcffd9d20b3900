# SPDX-License-Identifier: GPL-3.0-or-later
"""`python3 -m benchmarks.in_guest ROW OPTIONS`: measures, prints its figures as JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Run the measurement of that name, with its options as JSON."""
    row, options = sys.argv[1:]
    print(
        json.dumps(
            importlib.import_module(f"benchmarks.in_guest.{row}").measure(**json.loads(options))
        )
    )


main()

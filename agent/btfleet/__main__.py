# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m btfleet`."""

import sys

from btfleet.cli import main

sys.exit(main())

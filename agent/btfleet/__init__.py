# SPDX-License-Identifier: GPL-3.0-or-later
"""The btfleet command, loader and agent of a host."""

__version__ = "0.1.0"

# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: kinds of hosts, what each of them gets, and whether it really does."""

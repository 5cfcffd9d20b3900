# SPDX-License-Identifier: GPL-3.0-or-later
"""NATed traffic with a known answer, and the comparison of the tracker with it."""

# SPDX-License-Identifier: GPL-3.0-or-later
"""Ratios between what we do and what a peer does, on one machine and in one run."""

# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of whole playbooks on one and on several hosts."""

# SPDX-License-Identifier: GPL-3.0-or-later
"""What the behaviour tests look at and do inside of a guest, without the code under test."""

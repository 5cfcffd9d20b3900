# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error that is shown to the user."""


class NatError(Exception):
    """Something the user has to know, said in one line."""

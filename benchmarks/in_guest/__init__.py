# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs inside of a guest, as root, with nothing but the standard library and the release."""

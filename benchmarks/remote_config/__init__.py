# SPDX-License-Identifier: GPL-3.0-or-later
"""The config service under load, on this machine: no guests are needed."""

# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error of this library. Its message is one line: found, needed, what to do."""

from __future__ import annotations


class ConfigError(Exception):
    """A path, a custom field, a predicate or a content is not as it should be."""

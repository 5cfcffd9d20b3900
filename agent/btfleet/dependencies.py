# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent and the config service need beside Python's own library."""

from __future__ import annotations

# The release with its packages, as the roles bring it: what the lines below ask for
_ADVICE = (
    "deploy it with the role btfleet.conntrack.conntracker (conntracker_agent: true) or "
    "btfleet.conntrack.config_service, which bring the release with its packages"
)


def missing(exc: ModuleNotFoundError) -> str:
    """Return one line: which package this release lacks, and what brings it."""
    package = (exc.name or "a package").partition(".")[0]
    return f"this release has no Python package {package!r}: {_ADVICE}"

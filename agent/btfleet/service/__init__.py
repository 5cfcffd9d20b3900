# SPDX-License-Identifier: GPL-3.0-or-later
"""The config service: verifies both repositories, and answers the polls of the hosts.

`update` (Uptane client) -> `crosscheck` -> `store` -> `snapshot`, which answers polls: no
verification, lock or disk is on a poll's way. `service` is the gRPC side, `daemon` the process.
"""

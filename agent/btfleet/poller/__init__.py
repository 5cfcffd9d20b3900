# SPDX-License-Identifier: GPL-3.0-or-later
"""The poller agent: fetches this host's configs, verifies them, and has them applied.

Decisions are in modules without I/O: `verify` (what to trust), `backoff` (when to poll), `request`
(what to say), `wanted` (what to ask of the loader). The rest is the edge: `repository` (disk),
`service_channel` (network), `maps` (kernel), `local_service` and `metrics` (who asks us).
"""

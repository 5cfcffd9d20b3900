# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenario remote_config does on the control node: certificates, tokens, the service."""

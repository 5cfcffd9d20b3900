#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compliance_report
short_description: Reports on a fleet from its hosts' verdicts, and a threshold
version_added: 0.1.0
description:
  - Collects what M(btfleet.conntrack.compliance_info) has found on all hosts of the play, hosts
    that were not reached and hosts where it failed included, and writes reports on the control
    node.
  - Compares, if asked, what the hosts say with what the config service has heard of them.
  - Fails if more hosts than are allowed are not as they should be.
  - Runs on the control node alone, without a connection and without privileges. Nothing is written
    on the hosts. Run it once (C(run_once)), in a play of all the hosts.
author:
  - btfleet contributors (@btfleet)
options:
  result:
    description: The variable that each host's verdict was registered in.
    type: str
    default: compliance_result
  hosts:
    description: The hosts to report on. Without it, all hosts of the play.
    type: list
    elements: str
  folder:
    description:
      - The folder on the control node that the files are written to; it is made if needed.
        A JSON report has its time in its name and stays, for the trend of later reports.
        The others are replaced.
      - Without it, no file is written.
    type: path
  formats:
    description: The files to write.
    type: list
    elements: str
    choices: [json, csv, junit, markdown, html]
    default: [json, csv, junit, markdown, html]
  mode:
    description: Mode of the files.
    type: str
    choices: ['0600', '0640']
    default: '0600'
  table:
    description: Whether to print a table.
    type: bool
    default: true
  trend:
    description: How many earlier JSON reports in the folder are shown as the trend.
    type: int
    default: 30
  fail_severity:
    description:
      - A host with a control of this severity, or a worse one, that has failed or is unknown counts
        against O(fail_percent). With V(none), only hosts without a result do.
    type: str
    choices: [high, medium, low, none]
    default: medium
  fail_percent:
    description: The share of hosts that may be so.
    type: float
    default: 0
  service:
    description: The config service, to compare what hosts say with what it has heard.
    type: dict
    suboptions:
      address:
        description: C(HOST:PORT) of it.
        type: str
        required: true
      ca:
        description: File on the control node with the certificates that its own is checked against.
        type: path
        required: true
      token:
        description: An operator's token for it.
        type: str
      token_file:
        description:
          - File on the control node with an operator's token, in place of O(service.token).
        type: path
      tls_server_name:
        description: The name in its certificate, if it is not the one in its address.
        type: str
        default: ''
      client_certificate:
        description: File on the control node, for mutual TLS.
        type: path
      client_key:
        description: File on the control node, for mutual TLS.
        type: path
attributes:
  check_mode:
    description: Gives the same verdict, and writes no file.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
  action:
    description: It is an action on the control node.
    support: full
notes:
  - Reports are no part of a host's state, so nothing ever counts as changed.
  - O(service) needs grpcio and protobuf on the control node.
seealso:
  - module: btfleet.conntrack.compliance_info
"""

EXAMPLES = r"""
- name: Judge the hosts
  hosts: all
  gather_facts: false
  strategy: linear
  ignore_unreachable: true
  tasks:
    - name: Judge each
      btfleet.conntrack.compliance_info:
      register: compliance_result
      ignore_errors: true

    - name: Report on all, and fail if more than 2 % of them are not as they should be
      btfleet.conntrack.compliance_report:
        folder: reports
        fail_severity: high
        fail_percent: 2
      run_once: true
"""

RETURN = r"""
passed:
  description: Whether no more hosts than allowed are not as they should be.
  type: bool
  returned: always
summary:
  description: Counts of hosts and results, the threshold, and C(generated_at).
  type: dict
  returned: always
bad:
  description: The hosts that count against the threshold.
  type: list
  elements: str
  returned: always
files:
  description: Paths of what was written, by format.
  type: dict
  returned: always
"""

#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: core_support_info
short_description: Whether and how well a host can run the connection tracker
version_added: 0.1.0
description:
  - Finds out whether the kernel can run the CO-RE eBPF conntrack object, in which tier, and why
    in no better one.
  - Reads and probes; nothing that it makes outlives the call. A host that is not supported is a
    result and not a failure.
author:
  - btfleet contributors (@btfleet)
options:
  tiers:
    description:
      - The tiers that are allowed.
      - V(runtime) has to be allowed by name. It is for kernels without BTF, where bcc and the
        kernel's headers are installed. The load takes the types from them, which takes a compiler
        some seconds and 200 MB of memory; what runs then is the same object.
      - V(netlink) has to be allowed by name. It is for hosts where nothing may be loaded, and comes
        after all others. A process follows conntrack events and keeps the same table.
    type: list
    elements: str
    choices: [core/fentry, core/kprobe, core/fexit, core/kretprobe, runtime, netlink]
    default: [core/fentry, core/kprobe, core/fexit, core/kretprobe]
  allow_fentry_deadlock:
    description:
      - Take V(core/fentry) also where detaching such a program can deadlock the kernel (it has the
        symbol C(tasks_rcu_exit_srcu), about 5.7 to 6.8).
    type: bool
    default: false
  btf_path:
    description: A BTF file on the host to judge by, in place of the kernel's own.
    type: path
attributes:
  check_mode:
    description: Changes nothing, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
requirements:
  - Linux on x86_64 or aarch64
  - libbpf 0.5 or newer for the full verdict
seealso:
  - module: btfleet.conntrack.conntrack_object
notes:
  - Needs root for the full verdict. Without it, RV(supported) is false with that as the reason.
"""

EXAMPLES = r"""
- name: Look at the kernel
  btfleet.conntrack.core_support_info:
  register: support

- name: Say why a host gets no better tier
  ansible.builtin.debug:
    var: support.reasons
"""

RETURN = r"""
supported:
  description: Whether one of the allowed tiers is possible.
  type: bool
  returned: success
tier:
  description: The best possible tier.
  type: str
  returned: when RV(supported) is true
  sample: core/kprobe
lifecycle:
  description:
    - V(pinned) where the kernel keeps the programs attached by itself, V(held) where a process
      has to.
  type: str
  returned: when RV(supported) is true
  sample: pinned
degraded:
  description:
    - Whether the tier is V(netlink), where look-ups are some milliseconds behind the kernel, and
      flows are missed that end before their namespace is found.
  type: bool
  returned: success
reasons:
  description: For each better tier, every reason against it, with its evidence.
  type: dict
  returned: success
  sample:
    core/fentry:
      - "the kernel has tasks_rcu_exit_srcu: detaching fentry programs can deadlock there"
summary:
  description: The verdict in one line.
  type: str
  returned: success
  sample: "supported: tier core/kprobe, pinned"
facts:
  description: What the verdict was made of.
  type: dict
  returned: success
  contains:
    kernel:
      description: The kernel's release.
      type: str
      returned: success
    arch:
      description: The machine's architecture, as C(uname -m) says.
      type: str
      returned: success
    uid:
      description: The user that looked; others than root are refused what the kernel may allow.
      type: int
      returned: success
    lockdown:
      description: V(none), V(integrity) or V(confidentiality); null if it cannot be known.
      type: str
      returned: success
    libbpf:
      description: Path and version of the library; null if there is none.
      type: dict
      returned: success
    btf:
      description:
        - Where the types come from (C(source), C(path)) and the result code V(custom), V(embedded),
          V(default) or V(btf_not_found). The tier V(runtime) makes its own. With C(rewritten), they
          are the kernel's own, and libbpf is too old to read them as they are.
      type: dict
      returned: success
    modules:
      description: State of each kernel module, V(loaded), V(builtin), V(available) or V(absent).
      type: dict
      returned: success
    symbols:
      description: The real name of each function on this kernel; null where it is missing.
      type: dict
      returned: success
    sysctl:
      description: Kernel settings that matter to BPF.
      type: dict
      returned: success
    probes:
      description:
        - Each probed feature with C(value) V(yes), V(no) or V(inconclusive), and C(evidence).
      type: dict
      returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.facts import gather
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.support import (
    assess,
    hint,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import (
    DEFAULT_TIERS,
    TIERS,
)


def main() -> None:
    """Gathers and judges."""
    module = AnsibleModule(
        argument_spec={
            "tiers": {
                "type": "list",
                "elements": "str",
                "choices": list(TIERS),
                "default": list(DEFAULT_TIERS),
            },
            "allow_fentry_deadlock": {"type": "bool", "default": False},
            "btf_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    facts = gather(module.params["btf_path"])
    verdict = assess(facts, tuple(module.params["tiers"]), module.params["allow_fentry_deadlock"])
    result = verdict.to_dict()
    result["summary"] = "; ".join(filter(None, (verdict.summary, hint(facts, verdict))))
    module.exit_json(changed=False, facts=facts.to_dict(), **result)


if __name__ == "__main__":
    main()

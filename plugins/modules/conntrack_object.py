#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_object
short_description: Installs, loads and removes the eBPF conntrack object
version_added: 0.1.0
description:
  - Brings a host to a spec, that is an object file, pinned by its digest, and settings.
  - A spec that is in force already is left alone. Another spec replaces the programs without a gap
    and keeps the entries. Whatever is refused, the tracker that ran before keeps running.
  - Where remote config may override settings (O(remote_config_keys)), what it wants stays in force
    over the spec. If that cannot be loaded, the spec as it stands here is.
  - Needs nothing on the host but python3 and libbpf (iproute2 brings it), so it works ad hoc too.
author:
  - btfleet contributors (@btfleet)
options:
  state:
    description:
      - V(installed) puts the object file and the spec file on the host and leaves the kernel alone.
      - V(loaded) does that and loads, pins and attaches the object, and reads it back.
      - V(unloaded) takes everything out of the kernel and leaves the files.
      - V(absent) takes out both.
    type: str
    choices: [installed, loaded, unloaded, absent]
    default: loaded
  src:
    description:
      - The object file. On the control node, or on the host with O(remote_src=true).
      - Without it, the collection's own object for the host's architecture is taken.
    type: path
  remote_src:
    description: Take O(src) from the host.
    type: bool
    default: false
  sha256:
    description: The digest that the object file must have, in lower-case hex.
    type: str
  tcpv6_enabled:
    description: Track TCP over IPv6.
    type: bool
    default: true
  udpv6_enabled:
    description: Track UDP over IPv6.
    type: bool
    default: true
  max_entries:
    description: Size of the map of live flows, 1024 to 16777216. A flow takes two entries.
    type: int
    default: 131072
  closed_entries:
    description: Size of the map of closed flows, which forgets the oldest ones, 1024 to 16777216.
    type: int
    default: 65536
  tiers:
    description:
      - The tiers that are allowed. The best possible one is taken.
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
    description: A BTF file on the host to use in place of the kernel's own types.
    type: path
  remote_config_keys:
    description:
      - The settings that remote config may override on this host, as C(PRODUCT.key), for example
        V(CONNTRACK.udpv6_enabled). An empty list allows none. It is written to
        C(/etc/btfleet/remote.json).
      - Without this option that file stays as it is.
    type: list
    elements: str
  _objects:
    description: Set by the action plugin. Digest of the object for each architecture.
    type: dict
  _object:
    description: Set by the action plugin. Where the object file lies on the host.
    type: path
attributes:
  check_mode:
    description: Says what would change, and fails where the load itself would be refused.
    support: full
  diff_mode:
    description: Shows files, spec in force and drift, before and after.
    support: full
seealso:
  - module: btfleet.conntrack.core_support_info
  - module: btfleet.conntrack.conntrack_info
notes:
  - Has to run as root.
  - The spec file is C(/etc/btfleet/spec.json), object files lie in C(/var/lib/btfleet/objects),
    pins in C(/sys/fs/bpf/btfleet). The group C(btfleet), if there is one, may read the maps.
"""

EXAMPLES = r"""
- name: Load the collection's own object
  btfleet.conntrack.conntrack_object:
    state: loaded

- name: Load without IPv6 UDP, into larger maps
  btfleet.conntrack.conntrack_object:
    state: loaded
    udpv6_enabled: false
    max_entries: 1048576

- name: Load, and let remote config decide about IPv6
  btfleet.conntrack.conntrack_object:
    state: loaded
    remote_config_keys:
      - CONNTRACK.tcpv6_enabled
      - CONNTRACK.udpv6_enabled

- name: Load an object of one's own, pinned
  btfleet.conntrack.conntrack_object:
    state: loaded
    src: files/conntrack-x86_64.bpf.o
    sha256: 3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555

- name: Leave nothing behind
  btfleet.conntrack.conntrack_object:
    state: absent
"""

RETURN = r"""
state:
  description: The state that was asked for.
  type: str
  returned: success
fingerprint:
  description: SHA-256 of the settings that are to be in force, remote config included.
  type: str
  returned: for O(state=installed) and O(state=loaded)
spec:
  description: The spec as it was given here, with the digest of the object.
  type: dict
  returned: for O(state=installed) and O(state=loaded)
effective:
  description: The spec that is to be in force, remote config included.
  type: dict
  returned: for O(state=installed) and O(state=loaded)
owners:
  description: Who decided each setting, V(base) (this module) or the path of a config.
  type: dict
  returned: for O(state=installed) and O(state=loaded)
  sample: {tcpv6_enabled: base, udpv6_enabled: btfleet/1/CONNTRACK/edge/no-udp6}
remote_config_refused:
  description: Why what remote config wants is not in force, null if it is or nothing is wanted.
  type: str
  returned: for O(state=installed) and O(state=loaded)
tracker:
  description:
    - What the kernel holds, as the loader recorded it, with tier, lifecycle, ids of programs, links
      and maps. Null if nothing is loaded. In check mode, what it holds now.
  type: dict
  returned: success
drift:
  description: What was found to be not as it had been loaded.
  type: list
  elements: str
  returned: success
needs_object:
  description: For the action plugin. The object has to be sent before anything can be done.
  type: bool
  returned: when it is not on the host
arch:
  description: For the action plugin. The architecture of the host, as C(uname -m) says.
  type: str
  returned: when the object is not on the host
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import manage, remote
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import TrackerError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.object_choice import (
    chosen_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import (
    DEFAULT_TIERS,
    TIERS,
    Spec,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import (
    read_object_file,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import journal, points

SETTINGS = (
    "tcpv6_enabled",
    "udpv6_enabled",
    "max_entries",
    "closed_entries",
    "tiers",
    "allow_fentry_deadlock",
    "btf_path",
)


def run(module: AnsibleModule) -> dict[str, object]:
    """Plans, and does it unless in check mode; raises TrackerError."""
    params = module.params
    tracker = Tracker()
    wanted = params["state"]
    wish, content = None, None
    if wanted in ("installed", "loaded"):
        path = params["_object"] or (params["src"] if params["remote_src"] else None)
        if path:
            content = read_object_file(path, params["sha256"])
        digest = chosen_digest(content, params["_objects"], params["sha256"])
        spec = Spec.from_dict(
            {"object_sha256": digest, **{name: params[name] for name in SETTINGS}}
        )
        keys = params["remote_config_keys"]
        if keys is not None:
            keys = remote.check_keys(keys, "remote_config_keys")
        wish = manage.Wish.of(tracker, spec, keys)
    before, loaded = manage.read(tracker)
    after = manage.plan(before, wanted, wish)
    changed = before != after
    result = {
        "changed": changed,
        "state": wanted,
        "drift": list(before.drift),
        "tracker": loaded.record,
        "diff": {"before": before.to_dict(), "after": after.to_dict()},
    }
    if wish:
        result.update(in_force(wish.effective), spec=wish.spec.to_dict())
    if not changed:
        return result
    if wish and content is None and not tracker.store.has_object(wish.spec.object_sha256):
        return {"changed": False, "needs_object": True, "arch": platform.machine()}
    if module.check_mode:
        if wanted == "loaded" and wish:
            manage.check(tracker, wish, content)
        return result
    pinned = points.pinned_objects(journal.read_points(tracker.store))
    reached = manage.reach(tracker, wanted, wish, content, pinned)
    if reached:
        result.update(in_force(reached))
    result["tracker"] = tracker.read().record
    return result


def in_force(effective: remote.Effective) -> dict[str, object]:
    """The part of the result that remote config has a say in."""
    return {
        "effective": effective.spec.to_dict(),
        "fingerprint": effective.spec.fingerprint,
        "owners": dict(effective.owners),
        "remote_config_refused": effective.reason,
    }


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": list(manage.STATES),
                "default": "loaded",
            },
            "src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            "sha256": {"type": "str"},
            "tcpv6_enabled": {"type": "bool", "default": True},
            "udpv6_enabled": {"type": "bool", "default": True},
            "max_entries": {"type": "int", "default": 131072},
            "closed_entries": {"type": "int", "default": 65536},
            "tiers": {
                "type": "list",
                "elements": "str",
                "choices": list(TIERS),
                "default": list(DEFAULT_TIERS),
            },
            "allow_fentry_deadlock": {"type": "bool", "default": False},
            "btf_path": {"type": "path"},
            "remote_config_keys": {"type": "list", "elements": "str", "no_log": False},
            "_objects": {"type": "dict"},
            "_object": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except TrackerError as exc:
        module.fail_json(msg=str(exc), load_result=exc.result)
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()

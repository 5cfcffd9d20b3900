# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of the kernel: whether, and how well, it can run the object."""

from __future__ import annotations

from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.facts import (
    NO,
    YES,
    Facts,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.support import (
    Verdict,
    assess,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import (
    NETLINK,
    RUNTIME,
    TIERS,
)

from .host import Host
from .verdict import (
    HIGH,
    MEDIUM,
    PLATFORM,
    SECURITY,
    Control,
    Finding,
    judge,
    not_applicable,
    unknown,
)
from .wanted import Wanted


def _verdict(host: Host, facts: Facts) -> Verdict:
    """The verdict by the spec on the host, as its loader would make it."""
    spec = host.tracker.spec if host.tracker else None
    if spec is None:
        return assess(facts)
    return assess(facts, spec.tiers, spec.allow_fentry_deadlock)


def _record(host: Host) -> dict[str, object]:
    return (host.tracker.status.record or {}) if host.tracker else {}


_NOTHING_LOADED = "tier netlink: nothing has to be loaded"


def _is_followed(host: Host) -> bool:
    return _record(host).get("tier") == NETLINK


def supported(host: Host, _wanted: Wanted) -> Finding:
    """One of the allowed tiers is possible."""
    expected = "one of the allowed tiers is possible"
    if host.facts is None:
        return unknown(expected, host.why("facts"))
    verdict = _verdict(host, host.facts)
    return judge(
        verdict.supported,
        expected,
        f"kernel {host.facts.kernel}: {verdict.summary}",
        "`btfleet check` on the host says what is missing for each tier",
    )


def best_tier(host: Host, wanted: Wanted) -> Finding:
    """No better tier is possible than the one in force (as may be after another kernel)."""
    expected = "the best possible tier is in force"
    tier = _record(host).get("tier")
    if tier is None:
        return not_applicable(expected, "no tracker is loaded")
    if host.facts is None:
        return unknown(expected, host.why("facts"))
    best = _verdict(host, host.facts).tier
    # A better one than what is thought possible is no fault: it runs
    good = best is None or TIERS.index(str(tier)) <= TIERS.index(best)
    unload = wanted.rollout(" -e conntracker_state=unloaded")
    return judge(
        good,
        expected if best is None else best,
        f"{tier} (degraded: {_record(host).get('degraded')})" if _is_followed(host) else str(tier),
        f"{unload}, then {wanted.rollout()} (flows go unseen in between), or reboot the host",
    )


def lockdown(host: Host, _wanted: Wanted) -> Finding:
    """Lockdown lets programs read kernel memory."""
    expected = "kernel lockdown is none or integrity"
    if _is_followed(host):
        return not_applicable(expected, _NOTHING_LOADED)
    if host.facts is None:
        return unknown(expected, host.why("facts"))
    return judge(
        host.facts.lockdown != "confidentiality",
        expected,
        host.facts.lockdown or "the kernel has no lockdown, or does not show it",
        "boot without lockdown=confidentiality (kernel command line, /proc/cmdline shows it)",
    )


def btf(host: Host, _wanted: Wanted) -> Finding:
    """The kernel's types are to be had."""
    expected = "BTF has the types that the object reads"
    if _is_followed(host):
        return not_applicable(expected, _NOTHING_LOADED)
    if _record(host).get("tier") == RUNTIME:
        return not_applicable(expected, "tier runtime: the types are made of the kernel's headers")
    if host.facts is None:
        return unknown(expected, host.why("facts"))
    probe = host.facts.probes.get("btf")
    if probe is None:
        return unknown(
            expected, host.facts.probes["libbpf"].evidence, "install libbpf (iproute2 brings it)"
        )
    if probe.value not in (YES, NO):
        return not_applicable(expected, probe.evidence)
    return judge(
        probe.value == YES,
        expected,
        probe.evidence,
        "boot a kernel with CONFIG_DEBUG_INFO_BTF, or name a BTF file (conntracker_btf_path)",
    )


def bpffs(host: Host, wanted: Wanted) -> Finding:
    """A bpf file system is mounted, with the mode that lets the agent's group through."""
    expected = "a bpf file system at /sys/fs/bpf, which the agent's group can pass"
    if host.facts is None or host.tracker is None:
        return unknown(expected, host.why("facts" if host.facts is None else "tracker"))
    probe = host.facts.probes["bpffs"]
    if probe.value != YES:
        fix = "mount -t bpf bpf /sys/fs/bpf && systemctl enable sys-fs-bpf.mount"
        return judge(False, expected, probe.evidence, fix)
    denied = host.tracker.mount_denied
    return judge(
        denied is None,
        expected,
        f"mounted, but needs {denied}" if denied else "mounted",
        wanted.rollout(),
    )


CONTROLS = (
    Control("kernel.supported", "The kernel can run the object", HIGH, PLATFORM, supported),
    Control("kernel.tier", "The best possible tier is in force", MEDIUM, PLATFORM, best_tier),
    Control("kernel.lockdown", "Kernel lockdown allows reads", HIGH, SECURITY, lockdown),
    Control("kernel.btf", "The kernel's types are to be had", HIGH, PLATFORM, btf),
    Control("kernel.bpffs", "The bpf file system is mounted as needed", HIGH, PLATFORM, bpffs),
)

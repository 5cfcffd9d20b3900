# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of the matrix, as data: a host of the lab, what is different about it, what it gets.

A new kind of host is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.paths import CHECKOUT

PINNED, HELD = "pinned", "held"

# Types of the guests' kernels, made from their images
ARCHIVE = CHECKOUT / "build" / "matrix" / "btf-archive.tar.gz"
OLD_LIBBPF = CHECKOUT / "build" / "matrix" / "libbpf.so.0.8.0"


@dataclass(frozen=True)
class Variant:
    """What is done to a stock host. `script` runs in it as root, now and early at each boot.

    `files` are brought before: their paths there to those here.
    """

    kernel_args: str = ""
    script: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracked:
    """The host tracks: in this tier, its links pinned or held, with types from there."""

    tier: str
    lifecycle: str = PINNED
    btf: str = "default"


@dataclass(frozen=True)
class Refused:
    """The host cannot, and the rollout says why, in words that match `reason`."""

    reason: str


@dataclass(frozen=True)
class Breaks:
    """What is done to the host once it tracks, and the drift that it then has to say."""

    script: str
    drift: str


@dataclass(frozen=True)
class Row:
    """One kind of host. `variables` are the role's. `ci` says that each change is tested on it.

    With `breaks`, it has to notice that, and the next rollout to repair it.
    With `new_kernel`, a host of the lab, it reboots into that one's kernel, where it has to get
    `then`, and back.
    """

    name: str
    host: str
    gets: Tracked | Refused
    variant: Variant = Variant()
    variables: Mapping[str, object] = field(default_factory=dict)
    ci: bool = False
    breaks: Breaks | None = None
    new_kernel: str = ""
    then: Tracked | None = None


# Symbols are looked for in this file, by name, so a copy without one is a kernel that inlines it.
# A module's symbols appear with the module. systemd 252 gives a unit that may not write to cgroups
# a /proc of its own, which has to be told.
INSERT_INLINED = Variant(
    script="""
mkdir -p /etc/systemd/system/btfleet-conntracker.service.d
printf '[Service]\\nBindReadOnlyPaths=/run/kallsyms:/proc/kallsyms\\n' \\
    >/etc/systemd/system/btfleet-conntracker.service.d/kallsyms.conf
systemctl daemon-reload
modprobe nf_conntrack_netlink
umount -q /proc/kallsyms || true
grep -v ' __nf_conntrack_hash_insert\\b' /proc/kallsyms >/run/kallsyms
mount --bind /run/kallsyms /proc/kallsyms
"""
)
# As a container without privileges has it: root, and none of the capabilities that count.
NO_CAPABILITIES = Variant(
    script="""
cat >/usr/local/bin/python-in-container <<'END'
#!/bin/sh
exec setpriv --inh-caps=-all --bounding-set=-sys_admin,-bpf,-perfmon /usr/bin/python3 "$@"
END
chmod 755 /usr/local/bin/python-in-container
"""
)
# The kernel counts maps to the unit that makes them.
MEMORY_LIMIT = Variant(
    script="""
mkdir -p /etc/systemd/system/btfleet-conntracker.service.d
printf '[Service]\\nMemoryMax=96M\\n' >/etc/systemd/system/btfleet-conntracker.service.d/limit.conf
systemctl daemon-reload
"""
)
CONNTRACK_RELOADED = Breaks(
    script="""
nft flush ruleset
for _ in 1 2 3 4; do
    for module in $(lsmod | grep -oE '^(nf|nft|xt|ipt|ip6t|iptable|ip6table)_[a-z0-9_]+'); do
        rmmod $module 2>/dev/null || true
    done
done
[ ! -e /sys/module/nf_conntrack ]
modprobe nf_conntrack_netlink
""",
    drift="nf_conntrack was loaded anew",
)
# An empty file in its place is what a kernel without BTF comes down to for a reader.
NO_BTF = Variant(
    script="""
: >/run/no-btf
mount --bind /run/no-btf /sys/kernel/btf/vmlinux
"""
)
BTF_FILE = Variant(
    script="""
[ -s /root/kernel.btf ] || cp /sys/kernel/btf/vmlinux /root/kernel.btf
"""
    + NO_BTF.script
)
NO_MODULE_BTF = Variant(
    script="""
cp /sys/kernel/btf/vmlinux /run/
mount -t tmpfs -o mode=755 tmpfs /sys/kernel/btf
mv /run/vmlinux /sys/kernel/btf/
"""
)
# systemd's own sandboxes of units mount a read-only system all the same. No folder of the path is
# left there that a command could be put in.
READ_ONLY_USR = Variant(
    script="""
echo "PATH=$PATH:/opt/btfleet/current/bin" >/etc/environment
mount --bind /usr /usr
mount -o remount,ro,bind /usr
"""
)
# An older user space. ip and tc, which the tests need, keep the library that they are built for.
LIBBPF_08 = Variant(
    files={"/root/libbpf.so.0": OLD_LIBBPF},
    script="""
cd /usr/lib/x86_64-linux-gnu
[ -e libbpf.so.1 ] || exit 0
mkdir -p /usr/local/lib/iproute2
mv libbpf.so.1* /usr/local/lib/iproute2/
cp /root/libbpf.so.0 .
for tool in ip tc; do
    printf '#!/bin/sh\\nLD_LIBRARY_PATH=/usr/local/lib/iproute2 exec /sbin/%s "$@"\\n' $tool \\
        >/usr/local/sbin/$tool
    chmod 755 /usr/local/sbin/$tool
done
""",
)
KPROBES_OFF = Variant(
    script="""
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
echo 0 >/sys/kernel/debug/kprobes/enabled
"""
)

ROWS = {
    row.name: row
    for row in (
        Row("debian12", "debian12", Tracked("core/kprobe"), ci=True),
        Row("debian13", "debian13", Tracked("core/fentry"), ci=True),
        Row("debian12-k510", "debian12-k510", Tracked("core/kprobe", HELD)),
        Row("debian13-k73", "debian13-k73", Tracked("core/fentry")),
        Row("debian12-arm64", "debian12-arm64", Tracked("core/kprobe")),
        Row(
            "lockdown-integrity",
            "debian12",
            Tracked("core/kprobe"),
            Variant(kernel_args="lockdown=integrity"),
        ),
        Row(
            "lockdown-confidentiality",
            "debian12",
            Refused("kernel lockdown is confidentiality"),
            Variant(kernel_args="lockdown=confidentiality"),
        ),
        Row(
            "lockdown-netlink",
            "debian12",
            Tracked("netlink", HELD, "netlink"),
            Variant(kernel_args="lockdown=confidentiality"),
            {"conntracker_tiers": ["core/kprobe", "netlink"]},
        ),
        Row(
            "bpffs-unmounted",
            "debian12",
            Refused("no bpf file system"),
            Variant(script="systemctl mask --now sys-fs-bpf.mount; umount -q /sys/fs/bpf || true"),
        ),
        Row(
            "unprivileged",
            "debian12",
            Refused("not enough privileges"),
            NO_CAPABILITIES,
            {"ansible_python_interpreter": "/usr/local/bin/python-in-container"},
        ),
        Row(
            "conntrack-reloaded",
            "debian12",
            Tracked("core/kprobe"),
            breaks=CONNTRACK_RELOADED,
        ),
        Row("memory-limit", "debian12", Tracked("core/kprobe"), MEMORY_LIMIT),
        Row("libbpf-0.8", "debian12", Tracked("core/kprobe"), LIBBPF_08),
        Row("kprobes-off", "debian13", Tracked("core/fentry"), KPROBES_OFF),
        Row("kprobes-off-k61", "debian12", Refused("kprobes are switched off"), KPROBES_OFF),
        Row(
            "conntrack-absent",
            "debian12",
            Refused("the kernel does not answer for conntrack"),
            Variant(script="echo 'install nf_conntrack /bin/false' >/etc/modprobe.d/none.conf"),
        ),
        Row("no-btf", "debian12", Refused("the kernel gives no BTF"), NO_BTF),
        Row(
            "no-btf-archive",
            "debian12",
            Tracked("core/kprobe", btf="embedded"),
            NO_BTF,
            {"conntracker_btf_archive": str(ARCHIVE)},
        ),
        Row(
            "no-btf-file",
            "debian12",
            Tracked("core/kprobe", btf="custom"),
            BTF_FILE,
            {"conntracker_btf_path": "/root/kernel.btf"},
        ),
        Row(
            "no-btf-runtime",
            "debian12",
            Tracked("runtime", PINNED, "runtime"),
            NO_BTF,
            {"conntracker_tiers": ["core/kprobe", "runtime"], "conntracker_install_compiler": True},
        ),
        Row("insert-inlined", "debian13", Tracked("core/fexit"), INSERT_INLINED),
        Row("insert-inlined-k61", "debian12", Tracked("core/kretprobe"), INSERT_INLINED),
        Row(
            "insert-inlined-k510",
            "debian12-k510",
            Tracked("core/kretprobe", HELD),
            INSERT_INLINED,
        ),
        Row("no-module-btf", "debian13", Tracked("core/kprobe"), NO_MODULE_BTF),
        Row(
            "k61-to-k612",
            "debian12",
            Tracked("core/kprobe"),
            new_kernel="debian13",
            then=Tracked("core/fentry"),
        ),
        Row(
            "k612-to-k73",
            "debian13",
            Tracked("core/fentry"),
            new_kernel="debian13-k73",
            then=Tracked("core/fentry"),
        ),
        Row("read-only-usr", "debian13", Tracked("core/fentry"), READ_ONLY_USR),
    )
}

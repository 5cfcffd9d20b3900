# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to know about a host before anything is loaded. All the reading is here.

A probe answers yes, no or inconclusive, with its evidence: what was read or tried and what came
of it. Nothing that a probe makes outlives it.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Callable

from ..bpf import bpf, libc
from ..bpf.libbpf import Btf, Libbpf
from ..btf import archive, header_types, needed_types
from ..errors import BtfNotFound, TrackerError
from . import symbols
from .modules import MODULE, NETLINK_MODULE, module_state

YES, NO, INCONCLUSIVE = "yes", "no", "inconclusive"


# A function of the kernel image (5.10 and newer): trying fentry on it needs no module's BTF
ALWAYS_THERE = "kernel_clone"
# What programs that iterate over a map's entries are written for (5.9)
MAP_ITERATOR = "bpf_iter_bpf_map_elem"

# linux/capability.h
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39

# The members that the object reads (bpf/kernel_types.h); `zone` is optional
NEEDED_MEMBERS = {
    "nf_conn": {"tuplehash", "status", "ct_net"},
    "nf_conntrack_tuple": {"src", "dst"},
    "net": {"ns"},
    "ns_common": {"inum"},
    "sk_buff": {"_nfct"},
}


@dataclass(frozen=True)
class Probe:
    """An answer and where it comes from."""

    value: str
    evidence: str


@dataclass(frozen=True)
class BtfFacts:
    """Where the kernel's types come from; `result` as in load results.

    `rewritten`: they are the kernel's own, and had to be written in a form that this libbpf reads.
    """

    source: str | None
    result: str
    path: str | None = None
    rewritten: bool = False


@dataclass(frozen=True)
class Facts:
    """Everything that the verdict is made of."""

    kernel: str
    arch: str
    lockdown: str | None
    libbpf: dict[str, str] | None
    btf: BtfFacts
    modules: dict[str, str]
    symbols: dict[str, str | None]
    sysctl: dict[str, str | None]
    uid: int = 0
    probes: dict[str, Probe] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Plain data, as in JSON."""
        return asdict(self)


def gather(btf_path: str | None = None) -> Facts:
    """Reads and probes the running host. Raises nothing for what a host lacks."""
    probes: dict[str, Probe] = {}
    bpf.raise_memlock()
    found = _symbols(probes)
    lockdown = _lockdown(probes)
    _privileges(probes)
    lib = _libbpf(probes)
    function_ids: dict[str, int] = {}
    btf = BtfFacts(None, "btf_not_found")
    if lib:
        btf, function_ids = _btf(lib, btf_path, probes)
    _runtime(probes)
    _functions(function_ids, lib, probes)
    _bpf_features(function_ids, found, probes)
    _kprobe_events(found, probes)
    if lib and probes["kprobe_events"].value == NO:
        probes["fentry_seed"] = _fentry_seed(lib, found)
    _bpffs(probes)
    modules = {
        name: "builtin" if module_state(name) == "absent" and found[symbol] else module_state(name)
        for name, symbol in ((MODULE, symbols.REMOVE_EXPECTATIONS), (NETLINK_MODULE, symbols.SEED))
    }
    _events(modules[MODULE], probes)
    for name, state in modules.items():
        probes[name] = Probe(NO if state == "absent" else YES, f"module state: {state}")
    return Facts(
        kernel=platform.release(),
        arch=platform.machine(),
        lockdown=lockdown,
        libbpf={"path": lib.path, "version": lib.version} if lib else None,
        btf=btf,
        modules=modules,
        symbols=found,
        sysctl={name: _sysctl(name) for name in _SYSCTLS},
        uid=os.geteuid(),
        probes=probes,
    )


_SYSCTLS = (
    "kernel.unprivileged_bpf_disabled",
    "kernel.perf_event_paranoid",
    "net.core.bpf_jit_enable",
)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _sysctl(name: str) -> str | None:
    return _read("/proc/sys/" + name.replace(".", "/"))


# include/linux/errno.h: not for user space, and yet it comes by
_ENOTSUPP = 524


def _errno_name(exc: OSError) -> str:
    if exc.errno == _ENOTSUPP:
        return "ENOTSUPP"
    return errno.errorcode.get(exc.errno or 0, str(exc.errno))


# --- host -------------------------------------------------------------------------------------


def _symbols(probes: dict[str, Probe]) -> dict[str, str | None]:
    try:
        text = symbols.read()
    except OSError as exc:
        found = dict.fromkeys(symbols.WANTED)
        evidence = f"/proc/kallsyms: {_errno_name(exc)}"
        for name in symbols.WANTED:
            probes[f"symbol:{name}"] = Probe(INCONCLUSIVE, evidence)
        return found
    found = symbols.find(text)
    doubts = symbols.doubts(text, found)
    # Without the module its symbols are nowhere to be seen, which says nothing about them
    waiting = module_state(MODULE) == "available"
    for name, real in found.items():
        if real:
            doubt = f" ({doubts[name]})" if name in doubts else ""
            probes[f"symbol:{name}"] = Probe(YES, f"/proc/kallsyms has {real}{doubt}")
        elif waiting and name != symbols.DETACH_DEADLOCK:
            probes[f"symbol:{name}"] = Probe(INCONCLUSIVE, f"{MODULE} is not loaded yet")
        elif name == symbols.SEED and module_state(NETLINK_MODULE) == "available":
            probes[f"symbol:{name}"] = Probe(INCONCLUSIVE, f"{NETLINK_MODULE} is not loaded yet")
        else:
            probes[f"symbol:{name}"] = Probe(NO, "not in /proc/kallsyms")
    return found


_LOCKDOWN_FILE = "/sys/kernel/security/lockdown"


def _lockdown(probes: dict[str, Probe]) -> str | None:
    text, where = _read(_LOCKDOWN_FILE), _LOCKDOWN_FILE
    if text is None:
        text = _lockdown_by_private_mount()
        where = f"{_LOCKDOWN_FILE} (securityfs mounted for this look only)"
    mode = parse_lockdown(text)
    if mode is None:
        probes["lockdown_allows_reads"] = Probe(
            INCONCLUSIVE, f"{_LOCKDOWN_FILE} cannot be read (no securityfs, or no lockdown)"
        )
    else:
        value = NO if mode == "confidentiality" else YES
        probes["lockdown_allows_reads"] = Probe(value, f"{where}: {text}")
    return mode


def parse_lockdown(text: str | None) -> str | None:
    """The mode in brackets: none, integrity or confidentiality."""
    if text and "[" in text:
        return text.split("[", 1)[1].split("]", 1)[0]
    return None


def _lockdown_by_private_mount() -> str | None:
    """Mounts securityfs in a mount namespace that only a short-lived child sees."""
    ms_rec_private = 0x4000 | 0x40000
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc.unshare(libc.CLONE_NEWNS)
            libc.mount(None, "/", None, ms_rec_private)
            libc.mount("securityfs", os.path.dirname(_LOCKDOWN_FILE), "securityfs", 0)
            os.write(writer, (_read(_LOCKDOWN_FILE) or "").encode())
        except OSError:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text or None


_EVENTS = "net.netfilter.nf_conntrack_events"


def _events(module: str, probes: dict[str, Probe]) -> None:
    value = _sysctl(_EVENTS)
    if value is None and module == "available":
        probes["conntrack_events"] = Probe(INCONCLUSIVE, f"{MODULE} is not loaded yet")
        return
    shown = "not there" if value is None else value
    on = value not in (None, "0")
    probes["conntrack_events"] = Probe(YES if on else NO, f"{_EVENTS}: {shown}")


def _privileges(probes: dict[str, Probe]) -> None:
    status = _read("/proc/self/status") or ""
    line = next((text for text in status.splitlines() if text.startswith("CapEff:")), "CapEff: 0")
    mask = int(line.split()[1], 16)

    def has(bit: int) -> bool:
        return bool(mask >> bit & 1)

    # Reading the BTF of modules takes CAP_SYS_ADMIN, whatever else one has
    enough = has(CAP_SYS_ADMIN)
    names = [
        name
        for name, bit in (
            ("CAP_SYS_ADMIN", CAP_SYS_ADMIN),
            ("CAP_BPF", CAP_BPF),
            ("CAP_PERFMON", CAP_PERFMON),
        )
        if has(bit)
    ]
    probes["privileges"] = Probe(
        YES if enough else NO,
        f"uid {os.geteuid()}, effective capabilities: {', '.join(names) or 'none of BPF'}",
    )


def _bpffs(probes: dict[str, Probe]) -> None:
    try:
        magic = libc.filesystem_magic("/sys/fs/bpf")
    except OSError as exc:
        probes["bpffs"] = Probe(NO, f"/sys/fs/bpf: {_errno_name(exc)}")
        return
    mounted = magic == bpf.BPFFS_MAGIC
    probes["bpffs"] = Probe(YES if mounted else NO, f"/sys/fs/bpf has type {magic:#x}")


# --- libbpf and BTF ---------------------------------------------------------------------------


def _libbpf(probes: dict[str, Probe]) -> Libbpf | None:
    try:
        lib = Libbpf()
    except TrackerError as exc:
        probes["libbpf"] = Probe(NO, str(exc))
        return None
    probes["libbpf"] = Probe(YES, f"libbpf {lib.version} at {lib.path}")
    return lib


def _btf(
    lib: Libbpf, btf_path: str | None, probes: dict[str, Probe]
) -> tuple[BtfFacts, dict[str, int]]:
    function_ids: dict[str, int] = {}
    places: dict[str, int] = {}
    rewritten = False
    try:
        with ExitStack() as stack:
            kernel, rewritten = _kernel_btf(lib, stack, probes)
            places = _places(kernel)
            for name in (*symbols.ATTACHED, ALWAYS_THERE, MAP_ITERATOR):
                type_id = kernel.function(name)
                if type_id is not None:
                    function_ids[name] = type_id
            probe = _types_probe(kernel, "/sys/kernel/btf")
    except BtfNotFound as exc:
        probe = Probe(NO, str(exc))
    facts = BtfFacts("kernel", "default", "/sys/kernel/btf/vmlinux", rewritten)
    if btf_path is not None:
        facts = BtfFacts("file", "custom", btf_path)
        probe = _file_probe(lib, btf_path, f"btf_path {btf_path}", places)
    elif probe.value == NO:
        facts, probe = _from_archive(lib, facts, probe)
    probes["btf"] = probe
    if probe.value == NO:
        facts = BtfFacts(None, "btf_not_found", facts.path)
    return facts, function_ids


def _kernel_btf(lib: Libbpf, stack: ExitStack, probes: dict[str, Probe]) -> tuple[Btf, bool]:
    """The kernel's own types, and whether they had to be rewritten for libbpf to read them.

    Then no function is among them. Raises BtfNotFound if the kernel gives none.
    """
    probes["kernel_btf"] = Probe(YES, f"libbpf {lib.version} reads /sys/kernel/btf")
    try:
        return stack.enter_context(Btf.of_kernel(lib, MODULE)), False
    except BtfNotFound as exc:
        probes["kernel_btf"] = Probe(NO, str(exc))
        try:
            content = needed_types.of_kernel(MODULE)
        except (OSError, ValueError):
            content = b""
        if not content:
            raise
    path = stack.enter_context(archive.as_file(content))
    return stack.enter_context(Btf.of_file(lib, path, "the kernel's BTF, rewritten")), True


def _places(btf: Btf) -> dict[str, int]:
    """Where the members that the object reads lie, as `struct.member` to a number of bits."""
    return {
        f"{struct_name}.{name}": offset
        for struct_name, needed in NEEDED_MEMBERS.items()
        for name, offset in (btf.members(struct_name) or {}).items()
        if name in needed
    }


def _file_probe(lib: Libbpf, path: str, name: str, kernel_places: dict[str, int]) -> Probe:
    """A file's types; `name` is for messages. Where the kernel has types, too, they must agree."""
    try:
        with Btf.of_file(lib, path, name) as custom:
            probe = _types_probe(custom, name)
            found = _places(custom)
    except BtfNotFound as exc:
        return Probe(NO, str(exc))
    for member, offset in found.items():
        here = kernel_places.get(member, offset)
        if here != offset and probe.value == YES:
            return Probe(
                NO,
                f"{name} is of another kernel ({member} is at byte {offset // 8} there, at "
                f"{here // 8} in this one): {_OTHER_BTF}",
            )
    return probe


def _from_archive(lib: Libbpf, facts: BtfFacts, without: Probe) -> tuple[BtfFacts, Probe]:
    """`without` says why the kernel's own types will not do."""
    kernel = archive.running()
    try:
        found = archive.find(kernel)
    except BtfNotFound as exc:
        return facts, Probe(NO, f"{without.evidence}; {exc}")
    if found is None:
        if os.path.exists(archive.PATH):
            text = f"{archive.PATH} has nothing for kernel {kernel.release} ({kernel.build})"
            return facts, Probe(NO, f"{without.evidence}; {text}")
        return facts, without
    member, content = found
    with archive.as_file(content) as path:
        probe = _file_probe(lib, path, f"{member} in {archive.PATH}", {})
    return BtfFacts("archive", "embedded", member), probe


def of_headers(lib: Libbpf) -> tuple[BtfFacts, bytes]:
    """Types made of the kernel's headers, which takes a compiler a while unless they are kept;
    raises BtfNotFound.
    """
    source = header_types.KEPT if header_types.kept() else header_types.headers_path()
    content = header_types.of_running()
    with archive.as_file(content) as path:
        probe = _file_probe(lib, path, f"what bcc made of the kernel's headers ({source})", {})
    if probe.value == NO:
        raise BtfNotFound(probe.evidence)
    return BtfFacts("headers", "runtime", source), content


def _runtime(probes: dict[str, Probe]) -> None:
    if header_types.kept():
        # An earlier load had them
        enough = Probe(YES, f"not needed: what they told is kept in {header_types.KEPT}")
        probes.update(bcc=enough, kernel_headers=enough)
        return
    for name, path in (
        ("bcc", header_types.bcc_path()),
        ("kernel_headers", header_types.headers_path()),
    ):
        probes[name] = Probe(YES if path else NO, path or "not installed")


_OTHER_BTF = "name a BTF file of this kernel with btf_path"


def _types_probe(btf: Btf, where: str) -> Probe:
    for struct_name, needed in NEEDED_MEMBERS.items():
        members = btf.members(struct_name)
        if members is None:
            if struct_name == "nf_conn" and module_state(MODULE) == "available":
                return Probe(
                    INCONCLUSIVE, f"{MODULE} is not loaded yet, its types may come with it"
                )
            return Probe(NO, f"{where} has no struct {struct_name}: {_OTHER_BTF}")
        missing = sorted(needed - set(members))
        if missing:
            return Probe(
                NO, f"{where}: struct {struct_name} has no member {missing[0]}: {_OTHER_BTF}"
            )
    return Probe(YES, f"{where} has nf_conn with {', '.join(sorted(NEEDED_MEMBERS['nf_conn']))}")


def _functions(function_ids: dict[str, int], lib: Libbpf | None, probes: dict[str, Probe]) -> None:
    waiting = module_state(MODULE) == "available"
    for name in symbols.ATTACHED:
        key = f"btf_function:{name}"
        if name in function_ids:
            probes[key] = Probe(YES, f"BTF describes it, type id {function_ids[name]}")
        elif lib is None:
            probes[key] = Probe(INCONCLUSIVE, "no libbpf to read BTF with")
        elif waiting:
            probes[key] = Probe(INCONCLUSIVE, f"{MODULE} is not loaded yet")
        elif probes["kernel_btf"].value == NO:
            probes[key] = Probe(NO, probes["kernel_btf"].evidence)
        else:
            probes[key] = Probe(NO, "neither the kernel's BTF nor the module's describes it")


# --- bpf(2) -----------------------------------------------------------------------------------

# r1 = r10 - 8; r2 = 8; r3 = 0; call bpf_probe_read_kernel; r0 = 0; exit
_READ_KERNEL = (
    struct.pack("=BBhi", 0xBF, 0xA1, 0, 0)
    + struct.pack("=BBhi", 0x07, 0x01, 0, -8)
    + struct.pack("=BBhi", 0xB7, 0x02, 0, 8)
    + struct.pack("=BBhi", 0xB7, 0x03, 0, 0)
    + struct.pack("=BBhi", 0x85, 0, 0, 113)
    + bpf.RETURN_ZERO
)


def _try(what: str, action: Callable[[], int]) -> Probe:
    try:
        os.close(action())
    except OSError as exc:
        return Probe(NO, f"{what}: {_errno_name(exc)} ({exc.strerror})")
    return Probe(YES, f"{what}: done")


def _bpf_features(
    function_ids: dict[str, int], found: dict[str, str | None], probes: dict[str, Probe]
) -> None:
    probes["bpf_syscall"] = _try(
        "BPF_MAP_CREATE of an array", lambda: bpf.map_create(bpf.ARRAY, 4, 8, 1)
    )
    probes["hash_maps"] = _try(
        "BPF_MAP_CREATE of a hash", lambda: bpf.map_create(bpf.HASH, 4, 8, 8)
    )
    probes["lru_hash_maps"] = _try(
        "BPF_MAP_CREATE of an LRU hash", lambda: bpf.map_create(bpf.LRU_HASH, 4, 8, 8)
    )
    probes["batch_lookups"] = _batches()
    probes["kprobe_programs"] = _try(
        "BPF_PROG_LOAD of a kprobe program that reads kernel memory",
        lambda: bpf.prog_load(bpf.PROG_TYPE_KPROBE, _READ_KERNEL),
    )
    probes["perf_links"] = _perf_links()
    probes["tracing_programs"] = _tracing(function_ids, found, platform.machine())
    probes["map_iterators"] = _iterators(function_ids)
    jit = _sysctl("net.core.bpf_jit_enable")
    probes["jit"] = Probe(
        INCONCLUSIVE if jit is None else YES if jit != "0" else NO,
        f"net.core.bpf_jit_enable = {jit}",
    )


def _batches() -> Probe:
    what = "BPF_MAP_LOOKUP_BATCH on an empty hash"
    try:
        with bpf.closing(bpf.map_create(bpf.HASH, 4, 8, 8)) as fd:
            supported = bpf.has_batches(fd)
    except OSError as exc:
        return Probe(INCONCLUSIVE, f"{what}: {_errno_name(exc)}")
    return Probe(YES if supported else NO, what)


def _perf_links() -> Probe:
    what = "BPF_LINK_CREATE on a perf event"
    try:
        with bpf.closing(bpf.prog_load(bpf.PROG_TYPE_KPROBE, bpf.RETURN_ZERO)) as program:
            bpf.call(bpf.LINK_CREATE, struct.pack("=IiII", program, -1, bpf.PERF_EVENT, 0))
    except OSError as exc:
        if exc.errno == errno.EBADF:  # it got as far as looking at the event
            return Probe(YES, f"{what}: known")
        return Probe(NO, f"{what}: {_errno_name(exc)} (known from 5.15 on)")
    return Probe(INCONCLUSIVE, f"{what}: no error for an event that does not exist")


def _tracing(function_ids: dict[str, int], found: dict[str, str | None], machine: str) -> Probe:
    if ALWAYS_THERE not in function_ids:
        return Probe(INCONCLUSIVE, "no function in BTF to try it on")
    function = function_ids[ALWAYS_THERE]
    # Where x86 loads a program it attaches it. Not so arm64 before 6.4, which says it only then;
    # and where detaching can deadlock nothing is attached just to see.
    if machine == "x86_64" or found.get(symbols.DETACH_DEADLOCK):
        return _try(
            f"BPF_PROG_LOAD of an fentry program on {ALWAYS_THERE}",
            lambda: bpf.prog_load(
                bpf.PROG_TYPE_TRACING, bpf.RETURN_ZERO, bpf.TRACE_FENTRY, function
            ),
        )
    return _try(
        f"attaching an fentry program to {ALWAYS_THERE}",
        lambda: _attach_for_a_moment(function, 0),
    )


def _fentry_seed(lib: Libbpf, found: dict[str, str | None]) -> Probe:
    """Whether an fentry program can sit where the seed program does.

    It is attached for a moment, and does nothing: only then do kernels say that they have no
    trampoline for so many arguments (x86 before 6.6 takes six, ctnetlink_fill_info() has seven).
    """
    if found.get(symbols.DETACH_DEADLOCK):
        return Probe(INCONCLUSIVE, f"not tried on a kernel with {symbols.DETACH_DEADLOCK}")
    if module_state(NETLINK_MODULE) == "available":
        return Probe(INCONCLUSIVE, f"{NETLINK_MODULE} is not loaded yet")
    try:
        with Btf.of_kernel(lib, NETLINK_MODULE) as kernel:
            function = kernel.function(symbols.SEED)
    except BtfNotFound as exc:
        return Probe(NO, str(exc))
    if function is None:
        return Probe(NO, f"BTF does not describe {symbols.SEED}")
    return _try(
        f"attaching an fentry program to {symbols.SEED}", lambda: _attach_to_module(function)
    )


def _attach_to_module(function: int) -> int:
    types = _module_types(NETLINK_MODULE)
    if not types:  # it is part of the kernel's image
        return _attach_for_a_moment(function, 0)
    with bpf.closing(types):
        return _attach_for_a_moment(function, types)


def _attach_for_a_moment(function: int, types: int) -> int:
    """The link of an fentry program that does nothing: closing it detaches."""
    program = bpf.prog_load(
        bpf.PROG_TYPE_TRACING, bpf.RETURN_ZERO, bpf.TRACE_FENTRY, function, types
    )
    with bpf.closing(program):
        return bpf.attach_tracing(program)


def _module_types(name: str) -> int:
    """A descriptor of a module's own types; 0 if it has none."""
    for btf_id in bpf.ids(bpf.BTF_GET_NEXT_ID):
        fd = bpf.fd_by_id(bpf.BTF_GET_FD_BY_ID, btf_id)
        if bpf.btf_name(fd) == name:
            return fd
        os.close(fd)
    return 0


def _iterators(function_ids: dict[str, int]) -> Probe:
    if MAP_ITERATOR not in function_ids:
        return Probe(INCONCLUSIVE, f"no function {MAP_ITERATOR} in the kernel's BTF")
    return _try(
        "BPF_PROG_LOAD of an iterator over a map",
        lambda: bpf.prog_load(
            bpf.PROG_TYPE_TRACING, bpf.RETURN_ZERO, bpf.TRACE_ITER, function_ids[MAP_ITERATOR]
        ),
    )


_KPROBE_PMU = "/sys/bus/event_source/devices/kprobe/type"
_KPROBES_ENABLED = "/sys/kernel/debug/kprobes/enabled"


def _kprobe_events(found: dict[str, str | None], probes: dict[str, Probe]) -> None:
    pmu = _read(_KPROBE_PMU)
    if pmu is None:
        probes["kprobe_events"] = Probe(NO, f"{_KPROBE_PMU} is missing: no kprobes in this kernel")
        return
    if _read(_KPROBES_ENABLED) == "0":
        probes["kprobe_events"] = Probe(NO, f"{_KPROBES_ENABLED} is 0: kprobes are switched off")
        return
    function = found.get(symbols.REMOVE_EXPECTATIONS)
    if function is None:
        probes["kprobe_events"] = Probe(YES, f"{_KPROBE_PMU} is {pmu}")
        return
    probes["kprobe_events"] = _try(
        f"perf_event_open of a kprobe on {function}",
        lambda: libc.open_kprobe_event(int(pmu), function),
    )

# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host: each answer has its evidence, and reading leaves nothing behind."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.libbpf import Btf, Libbpf
from btfleet._kernel.btf import archive
from btfleet._kernel.host import facts, modules, symbols
from btfleet._kernel.host.support import assess

from tests.unit.kernel_access import needs_bpf


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("[none] integrity confidentiality", "none"),
        ("none [integrity] confidentiality", "integrity"),
        ("none integrity [confidentiality]", "confidentiality"),
        ("none integrity [confidentiality]\n", "confidentiality"),
        ("none integrity", None),
        ("", None),
        (None, None),
    ],
)
def test_the_lockdown_mode_is_the_one_in_brackets(text: str | None, mode: str | None) -> None:
    assert facts.parse_lockdown(text) == mode


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none integrity [confidentiality]", "no"),
        ("none [integrity] confidentiality", "yes"),
        ("[none] integrity confidentiality", "yes"),
        (None, "inconclusive"),
    ],
)
def test_only_confidentiality_forbids_reading(
    monkeypatch: pytest.MonkeyPatch, text: str | None, value: str
) -> None:
    monkeypatch.setattr(facts, "_read", lambda _path: text)
    monkeypatch.setattr(facts, "_lockdown_by_private_mount", lambda: None)
    probes: dict[str, facts.Probe] = {}
    facts._lockdown(probes)
    assert probes["lockdown_allows_reads"].value == value
    assert (text or "/sys/kernel/security/lockdown") in probes["lockdown_allows_reads"].evidence


@pytest.fixture(scope="module")
def here() -> facts.Facts:
    return facts.gather()


def test_every_probe_has_a_known_value_and_evidence_of_one_line(here: facts.Facts) -> None:
    assert here.probes
    for name, probe in here.probes.items():
        assert probe.value in ("yes", "no", "inconclusive"), name
        assert probe.evidence, name
        assert len(probe.evidence.splitlines()) == 1, name


def test_kernel_and_architecture_are_the_machines(here: facts.Facts) -> None:
    assert (here.kernel, here.arch) == (platform.release(), platform.machine())


def test_facts_are_plain_data(here: facts.Facts) -> None:
    assert json.loads(json.dumps(here.to_dict())) == here.to_dict()


@needs_bpf
def test_a_machine_that_lets_root_use_bpf_says_so(here: facts.Facts) -> None:
    for name in ("privileges", "bpf_syscall", "hash_maps", "lru_hash_maps"):
        assert here.probes[name].value == "yes", here.probes[name]


@needs_bpf
def test_lockdown_is_known_without_securityfs_mounted(here: facts.Facts) -> None:
    """CI's machine does not mount it; the look at it must not do so for others either."""
    if not os.path.isdir("/sys/kernel/security"):
        pytest.skip("this kernel has no securityfs")
    assert here.lockdown in ("none", "integrity", "confidentiality", None)
    mounts = Path("/proc/self/mountinfo").read_text()
    facts._lockdown({})
    assert Path("/proc/self/mountinfo").read_text() == mounts


@needs_bpf
def test_a_machine_under_lockdown_is_refused_with_lockdown_as_the_reason(
    here: facts.Facts,
) -> None:
    """Confidentiality forbids every tier; integrity as seen here forbids tracing programs."""
    verdict = assess(here)
    if here.lockdown == "confidentiality":
        assert not verdict.supported
        assert all("lockdown is confidentiality" in texts[0] for texts in verdict.reasons.values())
    elif here.lockdown == "integrity" and here.probes["tracing_programs"].value == "no":
        assert any("lockdown=integrity" in text for text in verdict.reasons["core/fentry"])
    else:
        pytest.skip(f"this machine's lockdown is {here.lockdown}")


@needs_bpf
def test_another_way_to_take_flows_in_is_tried_where_there_are_no_kprobes_alone(
    here: facts.Facts,
) -> None:
    if here.libbpf is None:
        pytest.skip("no libbpf")
    assert ("fentry_seed" in here.probes) == (here.probes["kprobe_events"].value == "no")


@needs_bpf
def test_a_function_that_btf_does_not_describe_cannot_be_sat_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(symbols, "SEED", "no_such_function")
    monkeypatch.setattr(facts, "module_state", lambda _name: "loaded")
    probe = facts._fentry_seed(Libbpf(), {})
    assert probe.value == "no"
    assert "no_such_function" in probe.evidence or "gives no BTF" in probe.evidence


def test_a_kernel_that_may_deadlock_is_not_tried() -> None:
    probe = facts._fentry_seed(Libbpf(), {symbols.DETACH_DEADLOCK: symbols.DETACH_DEADLOCK})
    assert probe.value == "inconclusive"


def test_gathering_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    facts.gather()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_btf_file_that_is_not_one_is_the_evidence(tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_text("no")
    found = facts.gather(str(path))
    if found.libbpf is None:
        pytest.skip("no libbpf")
    assert found.btf.result == "btf_not_found"
    assert found.probes["btf"] == facts.Probe("no", found.probes["btf"].evidence)
    assert f"btf_path {path} is not BTF" in found.probes["btf"].evidence


def test_a_btf_file_with_the_types_is_taken(
    objects: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object's own BTF has them; it must not be compared with this kernel's."""
    monkeypatch.setattr(facts, "_places", lambda _btf: {})
    good = facts.gather(str(objects["x86_64"]))
    if good.libbpf is None:
        pytest.skip("no libbpf")
    assert (good.btf.source, good.btf.result) == ("file", "custom")
    assert good.probes["btf"].value == "yes"


@pytest.mark.parametrize(
    ("builtin", "dep", "folder", "initstate", "state"),
    [
        ("kernel/net/netfilter/nf_conntrack.ko\n", "", False, False, "builtin"),
        ("", "kernel/net/netfilter/nf_conntrack.ko.xz: a\n", False, False, "available"),
        ("", "kernel/net/netfilter/nf_conntrack.ko: a\n", True, True, "loaded"),
        ("", "", True, False, "builtin"),
        ("", "", False, False, "absent"),
        ("", "kernel/net/netfilter/xnf_conntrack.ko\n", False, False, "absent"),
        ("", "kernel/net/netfilter/nf_conntrack_ftp.ko\n", False, False, "absent"),
    ],
)
def test_the_state_of_a_module(
    monkeypatch: pytest.MonkeyPatch,
    builtin: str,
    dep: str,
    folder: bool,
    initstate: bool,
    state: str,
) -> None:
    texts = {"modules.builtin": builtin, "modules.dep": dep}
    monkeypatch.setattr(modules, "_read", lambda path: texts[os.path.basename(path)])
    monkeypatch.setattr("os.path.isdir", lambda _path: folder)
    monkeypatch.setattr("os.path.exists", lambda _path: initstate)
    assert modules.module_state("nf_conntrack") == state


@pytest.mark.parametrize(
    ("module", "netlink", "expected"),
    [("available", "available", "inconclusive"), ("builtin", "available", "no")],
)
def test_a_symbol_of_a_module_that_is_not_loaded_yet_is_open(
    monkeypatch: pytest.MonkeyPatch, module: str, netlink: str, expected: str
) -> None:
    states = {modules.MODULE: module, modules.NETLINK_MODULE: netlink}
    monkeypatch.setattr(facts, "module_state", lambda name: states[name])
    monkeypatch.setattr(symbols, "read", lambda: b"")
    probes: dict[str, facts.Probe] = {}
    facts._symbols(probes)
    assert probes[f"symbol:{symbols.DELETE}"].value == expected
    assert probes[f"symbol:{symbols.SEED}"].value == "inconclusive"
    # This one is the kernel image's
    assert probes[f"symbol:{symbols.DETACH_DEADLOCK}"].value == "no"


def test_kallsyms_that_cannot_be_read_leave_every_symbol_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> dict[str, str | None]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(symbols, "read", refuse)
    probes: dict[str, facts.Probe] = {}
    assert facts._symbols(probes) == dict.fromkeys(symbols.WANTED)
    assert {probe.value for probe in probes.values()} == {"inconclusive"}
    assert {probe.evidence for probe in probes.values()} == {"/proc/kallsyms: EACCES"}


@pytest.mark.parametrize(
    ("mask", "value", "names"),
    [
        ("000001ffffffffff", "yes", "CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON"),
        ("0000000000200000", "yes", "CAP_SYS_ADMIN"),
        ("000000c000000000", "no", "CAP_BPF, CAP_PERFMON"),
        ("0000000000000000", "no", "none of BPF"),
    ],
)
def test_privileges_are_the_effective_capabilities(
    monkeypatch: pytest.MonkeyPatch, mask: str, value: str, names: str
) -> None:
    monkeypatch.setattr(facts, "_read", lambda _path: f"Name:\tx\nCapEff:\t{mask}\nCapBnd:\t0")
    probes: dict[str, facts.Probe] = {}
    facts._privileges(probes)
    assert probes["privileges"].value == value
    assert probes["privileges"].evidence.endswith(f"effective capabilities: {names}")


# --- types from files ----------------------------------------------------------------------------


class Types:
    """BTF as a file would give it."""

    def __init__(self, **moved: int) -> None:
        self._moved = moved

    def members(self, name: str) -> dict[str, int] | None:
        wanted = facts.NEEDED_MEMBERS[name]
        return {member: self._moved.get(member, 64) for member in wanted}

    def __enter__(self) -> Types:
        return self

    def __exit__(self, *_exception: object) -> None:
        return


def probe_of(monkeypatch: pytest.MonkeyPatch, there: Types, here: Types | None) -> facts.Probe:
    monkeypatch.setattr(Btf, "of_file", lambda *_arguments: there)
    places = facts._places(here) if here else {}  # type: ignore[arg-type]
    return facts._file_probe(None, "/x", "btf_path /x", places)  # type: ignore[arg-type]


def test_a_file_that_agrees_with_the_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe_of(monkeypatch, Types(), Types()).value == "yes"


def test_a_file_of_another_kernel_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of(monkeypatch, Types(status=1024), Types(status=960))
    assert probe == facts.Probe(
        "no",
        "btf_path /x is of another kernel (nf_conn.status is at byte 128 there, at 120 in "
        "this one): name a BTF file of this kernel with btf_path",
    )


def test_without_types_to_compare_with_a_file_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe_of(monkeypatch, Types(status=1024), None).value == "yes"


def test_a_kernel_without_types_takes_those_of_the_archive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = facts.Probe("no", "the kernel gives no BTF")
    none = facts.BtfFacts("kernel", "default", "/sys/kernel/btf/vmlinux")
    monkeypatch.setattr(archive, "find", lambda _kernel: ("a/b.btf", b"types"))
    monkeypatch.setattr(Btf, "of_file", lambda *_arguments: Types())
    found, probe = facts._from_archive(None, none, without)  # type: ignore[arg-type]
    assert found == facts.BtfFacts("archive", "embedded", "a/b.btf")
    assert probe.value == "yes"


def test_an_archive_without_the_kernel_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without = facts.Probe("no", "the kernel gives no BTF")
    none = facts.BtfFacts("kernel", "default", "/sys/kernel/btf/vmlinux")
    monkeypatch.setattr(archive, "find", lambda _kernel: None)
    monkeypatch.setattr(archive, "PATH", str(tmp_path / "btf.tar.gz"))
    assert facts._from_archive(None, none, without)[1] == without  # type: ignore[arg-type]
    (tmp_path / "btf.tar.gz").touch()
    probe = facts._from_archive(None, none, without)[1]  # type: ignore[arg-type]
    assert probe.evidence.startswith(
        f"the kernel gives no BTF; {tmp_path}/btf.tar.gz has nothing for kernel "
    )


def test_a_module_has_the_number_of_its_folder_or_none() -> None:
    assert modules.module_number("no_such_module") is None
    some = os.listdir("/sys/module")[0]
    assert modules.module_number(some) == os.stat(f"/sys/module/{some}").st_ino


class Kernel:
    """The calls of a kernel that loads tracing programs, and then does not attach them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def load(self, *_arguments: int) -> int:
        self.calls.append("load")
        return os.open("/dev/null", os.O_RDONLY)

    def attach(self, _program: int) -> int:
        self.calls.append("attach")
        raise OSError(524, "Unknown error 524")


@pytest.mark.parametrize(
    ("machine", "deadlock", "calls", "value"),
    [
        ("aarch64", None, ["load", "attach"], "no"),
        ("aarch64", symbols.DETACH_DEADLOCK, ["load"], "yes"),
        ("x86_64", None, ["load"], "yes"),
    ],
)
def test_tracing_is_tried_to_its_end_where_loading_says_too_little(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    deadlock: str | None,
    calls: list[str],
    value: str,
) -> None:
    """As Debian 12 on arm64 was found to be."""
    kernel = Kernel()
    monkeypatch.setattr(bpf, "prog_load", kernel.load)
    monkeypatch.setattr(bpf, "attach_tracing", kernel.attach)
    found = {symbols.DETACH_DEADLOCK: deadlock}
    probe = facts._tracing({facts.ALWAYS_THERE: 1}, found, machine)
    assert (kernel.calls, probe.value) == (calls, value)
    if value == "no":
        assert "kernel_clone: ENOTSUPP" in probe.evidence

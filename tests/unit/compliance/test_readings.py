# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host, against independent readers, real unit files, and files in a folder."""

from __future__ import annotations

import datetime
import json
import os
import ssl
import time
from pathlib import Path

import grpc
import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import (
    agent_controls,
    certificates,
    clock,
    file_access,
    units,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.certificates import (
    NotACertificate,
    Validity,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.gather import (
    Places,
    gather,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.units import UnitReading
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from btfleet.poller import service_channel
from btfleet.poller.settings import Settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel_access import needs_root

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(begins: datetime.datetime, ends: datetime.datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


MOMENTS = st.datetimes(
    min_value=datetime.datetime(1951, 1, 1),  # noqa: DTZ001 hypothesis adds the zone
    max_value=datetime.datetime(9999, 1, 1),  # noqa: DTZ001
    timezones=st.just(datetime.timezone.utc),
)


@given(MOMENTS, MOMENTS)
def test_the_validity_is_what_the_certificate_was_made_with(
    one: datetime.datetime, other: datetime.datetime
) -> None:
    begins, ends = (moment.replace(microsecond=0) for moment in sorted((one, other)))
    (found,) = certificates.read_pem(certificate(begins, ends))
    assert found == Validity(int(begins.timestamp()), int(ends.timestamp()))


def test_openssl_reads_the_same() -> None:
    begins = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    pem = certificate(begins, begins + datetime.timedelta(days=90))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode())
    (found,) = certificates.read_pem(pem)
    (openssl,) = context.get_ca_certs()
    assert ssl.cert_time_to_seconds(str(openssl["notAfter"])) == found.ends


def test_all_certificates_of_a_file_are_read() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    pem = certificate(now, now) + b"in between\n" + certificate(now, now)
    assert len(certificates.read_pem(pem)) == 2


@given(st.binary(max_size=300))
def test_what_is_no_certificate_is_refused(junk: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        certificates.of_der(junk)


def test_a_file_without_one_is_named() -> None:
    with pytest.raises(NotACertificate, match="no certificate"):
        certificates.read_pem(b"nothing")
    whole = certificate(*[datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)] * 2)
    lines = whole.splitlines()
    with pytest.raises(NotACertificate, match="damaged"):
        certificates.read_pem(b"\n".join([*lines[:2], lines[-1]]))


def test_the_kernel_tells_of_the_clock() -> None:
    found = clock.read()
    assert isinstance(found.synchronised, bool)
    assert found.max_error_seconds >= 0


def test_the_least_offset_is_told_from_when_the_host_was_asked() -> None:
    assert agent_controls.nearest_offset(100.0, 90.0, 110.0) == 0
    assert agent_controls.nearest_offset(100.0, 40.0, 90.0) == 10
    assert agent_controls.nearest_offset(100.0, 120.0, 140.0) == -20


# --- units ------------------------------------------------------------------------------------


def test_a_directive_in_another_spelling_is_the_same() -> None:
    wanted = units.hardening(
        "[Service]\nNoNewPrivileges=true\nCapabilityBoundingSet=CAP_BPF CAP_CHOWN\n"
        "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\nExecStart=/bin/true\n"
    )
    shown = {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "cap_chown cap_bpf",
        "SystemCallFilter": "read write",
    }
    assert set(wanted) == set(shown)
    assert units.weaker(UnitReading("f", "f", wanted, shown)) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("NoNewPrivileges", "no"),
        ("CapabilityBoundingSet", "cap_bpf cap_chown cap_sys_admin"),
        ("SystemCallFilter", ""),
    ],
)
def test_what_is_weaker_is_named(name: str, shown: str) -> None:
    wanted = {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "CAP_BPF CAP_CHOWN",
        "SystemCallFilter": "@system-service",
    }
    (line,) = units.weaker(UnitReading("f", "f", wanted, {name: shown}))
    assert line.startswith(f"{name}=")


def test_every_hardening_directive_of_our_units_is_known(checkout: Path) -> None:
    other = {
        *("SystemCallArchitectures", "SystemCallErrorNumber", "MemoryMax", "TasksMax", "LimitCORE"),
        *("UMask", "ReadWritePaths", "StateDirectory", "StateDirectoryMode"),
        *("RuntimeDirectory", "RuntimeDirectoryMode", "RuntimeDirectoryPreserve"),
    }
    for name in units.UNITS:
        text = (checkout / "agent" / "units" / name).read_text()
        found = units.hardening(text)
        section = text.partition("# The same as")[0].partition("[Install]")[0]
        names = {line.split("=")[0] for line in section.splitlines() if "=" in line}
        hardening = {one for one in names if one.startswith(("Protect", "Private", "Restrict"))}
        assert hardening - other <= set(found)


# --- files ------------------------------------------------------------------------------------


@needs_root
def test_what_others_could_change_in_a_release_is_found(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("good", "writable", "foreign"):
        (tmp_path / "lib" / name).write_text("")
        (tmp_path / "lib" / name).chmod(0o644)
    (tmp_path / "lib" / "writable").chmod(0o664)
    os.chown(tmp_path / "lib" / "foreign", 12345, 0)
    (tmp_path / "link").symlink_to("lib")
    found = {os.path.basename(one.path) for one in file_access.open_to_others(str(tmp_path))}
    assert found == {"writable", "foreign"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A bare host in a folder."""
    made = Places()
    for name in ("etc", "units", "bin"):
        (tmp_path / name).mkdir()
    store = Store(
        str(tmp_path / "etc" / "btfleet" / "spec.json"),
        str(tmp_path / "state"),
        str(tmp_path / "agent" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    made.tracker = Tracker(store, str(tmp_path / "pins"), str(tmp_path / "run" / "lock"))
    made.releases = release.Layout(
        str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), str(tmp_path / "units")
    )
    made.agent = poller_agent.Layout(
        str(tmp_path / "etc" / "btfleet"),
        str(tmp_path / "units"),
        str(tmp_path / "agent"),
        str(tmp_path / "run" / "agent"),
        str(tmp_path / "pins"),
    )
    return made


class Systemd:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        return 0, "\n\n".join(f"Id={name}\nActiveState=inactive" for name in units.UNITS), ""


def test_a_bare_host_is_read_with_one_call_of_systemctl(places: Places) -> None:
    systemd = Systemd()
    host = gather(systemd, time.time(), places)
    assert len(systemd.calls) == 1
    assert host.units is not None
    assert not any(unit.is_installed for unit in host.units.values())
    assert host.tracker is not None
    assert host.tracker.pins == ()
    assert host.agent is not None
    assert not host.agent.installed
    assert host.access == ()
    assert host.unfinished == ()
    assert set(host.unread) <= {"facts"}


def test_nothing_is_changed_by_reading(places: Places, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))
    gather(Systemd(), time.time(), places)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_host_without_systemd_is_read_all_the_same(places: Places) -> None:
    def none(_command: list[str]) -> tuple[int, str, str]:
        return 1, "", "no systemd"

    host = gather(none, time.time(), places)
    assert host.units is None
    assert "no systemd" in host.unread["units"]
    assert host.clock is not None


def test_a_systemctl_that_is_not_there_is_no_failure(places: Places) -> None:
    def none(_command: list[str]) -> tuple[int, str, str]:
        raise HostError("systemctl is missing: install systemd")

    assert "missing" in gather(none, time.time(), places).unread["units"]


def test_leftovers_are_those_that_nobody_writes_any_more(places: Places, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "objects"
    folder.mkdir(parents=True)
    (tmp_path / "opt" / "releases" / ".unpack-x").mkdir(parents=True)
    left = [folder / ".btfleet-old", tmp_path / "units" / "a.service.btfleet-new"]
    for path in left:
        path.write_text("")
    (folder / ".btfleet-now").write_text("")
    (folder / "kept.bpf.o").write_text("")
    hour_ago = time.time() - 3600
    for path in (*left, tmp_path / "opt" / "releases" / ".unpack-x"):
        os.utime(path, (hour_ago, hour_ago))
    host = gather(Systemd(), time.time(), places)
    assert host.unfinished is not None
    assert {os.path.basename(path) for path in host.unfinished} == {
        *(".btfleet-old", "a.service.btfleet-new", ".unpack-x")
    }


def test_a_damaged_spec_is_named_and_the_rest_is_read(places: Places) -> None:
    path = Path(places.tracker.store.spec_path)
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    host = gather(Systemd(), time.time(), places)
    assert "not JSON" in host.unread["spec"]
    assert host.tracker is not None
    assert host.tracker.spec is None


@needs_root
def test_the_agents_files_are_read(places: Places, tmp_path: Path) -> None:
    etc = tmp_path / "etc" / "btfleet"
    etc.mkdir()
    (etc / "agent.json").write_text('{"host": "gw1", "service": "c:1"}')
    (etc / "token").write_text("x" * 20)
    os.utime(etc / "token", (1000, 1000))
    (etc / "ca.pem").write_text("nothing")
    host = gather(Systemd(), time.time(), places)
    assert host.agent is not None
    assert host.agent.installed
    assert host.agent.token_changed_at == 1000
    assert host.agent.certificates == {}
    assert "no certificate" in host.unread[str(etc / "ca.pem")]
    assert host.access is not None
    assert {os.path.basename(one.path) for one in host.access} >= {"agent.json", "token", "ca.pem"}


# --- words that the agent has -------------------------------------------------------------------


class Refusal(grpc.RpcError):  # type: ignore[misc, no-any-unimported, unused-ignore]
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "what the service said"


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.PERMISSION_DENIED, True),
        (grpc.StatusCode.UNAVAILABLE, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False),
    ],
)
def test_a_refused_token_is_known_by_the_agents_own_words(
    code: grpc.StatusCode, refused: bool
) -> None:
    line = str(service_channel.explain(Refusal(code), Settings("gw1", "c:1")))
    assert bool(agent_controls._REFUSED.search(line)) == refused


@pytest.mark.parametrize("second", [True, False])
def test_an_agent_that_does_not_answer_is_asked_once_more(
    places: Places, tmp_path: Path, second: bool
) -> None:
    (tmp_path / "etc" / "btfleet").mkdir()
    (tmp_path / "etc" / "btfleet" / "agent.json").write_text("{}")
    (tmp_path / "run" / "agent").mkdir(parents=True)
    command = Path(places.releases.current) / "bin" / "btfleet"
    command.parent.mkdir(parents=True)
    command.write_text("")
    command.chmod(0o755)
    answers = [False, second]

    def run(called: list[str]) -> tuple[int, str, str]:
        if called[0] == str(command):
            return 0, json.dumps({"agent": {"running": answers.pop(0)}}), ""
        return Systemd()(called)

    host = gather(run, time.time(), places)
    assert answers == []
    assert host.agent is not None
    assert host.agent.summary["running"] is second

# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's own Debian mirror and signing keys, read from its apt sources."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Source:
    """One archive address with one suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True)
class Mirror:
    """Where Debian comes from on this machine."""

    main: str
    security: str  # empty when the machine has no security archive
    keyring: str

    def sources(self, suite: str, extra_suites: Iterable[str] = ()) -> list[Source]:
        """All that a stock host of that suite has: release, updates, security."""
        suites = [suite, f"{suite}-updates", *extra_suites]
        found = [Source(self.main, name, ("main",), self.keyring) for name in suites]
        if self.security:
            found.append(Source(self.security, f"{suite}-security", ("main",), self.keyring))
        return found


def parse_deb822(text: str) -> list[Source]:
    """Parse a .sources file."""
    found: list[Source] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _stanza_fields(stanza)
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() == "no":
            continue
        # An embedded key block is no path; apt's own default keyring serves instead.
        signed_by = fields.get("signed-by", "")
        signed_by = signed_by.split()[0] if signed_by.startswith("/") else ""
        components = tuple(fields.get("components", "").split())
        found += [
            Source(uri, suite, components, signed_by)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _stanza_fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += " " + line.strip()
        elif ":" in line:
            name, _colon, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return {key: value.strip() for key, value in fields.items()}


def parse_one_line(text: str) -> list[Source]:
    """Parse a .list file."""
    found: list[Source] = []
    for line in text.splitlines():
        active = line.split("#", 1)[0]
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>\S.*)", active)
        if not match:
            continue
        words = match["rest"].split()
        if len(words) < 2:
            continue
        options = dict(word.partition("=")[::2] for word in shlex.split(match["options"] or ""))
        signed_by = options.get("signed-by", "").split(",")[0]
        if not signed_by.startswith("/"):  # a key's fingerprint
            signed_by = ""
        found.append(Source(words[0], words[1], tuple(words[2:]), signed_by))
    return found


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """All active binary sources of the machine, with mirror lists resolved."""
    found: list[Source] = []
    for path in sorted([etc_apt / "sources.list", *(etc_apt / "sources.list.d").glob("*")]):
        if not path.is_file():
            continue
        if path.suffix == ".sources":
            found += parse_deb822(path.read_text())
        elif path.suffix == ".list":
            found += parse_one_line(path.read_text())
    return [resolve_mirror_list(source) for source in found]


def resolve_mirror_list(source: Source) -> Source:
    """Debian's cloud images name a file with a list of mirrors: take its first."""
    match = re.match(r"mirror\+file:(?://)?(?P<path>/.*)", source.uri)
    if not match:
        return source
    try:
        lines = Path(match["path"]).read_text().splitlines()
    except OSError as error:
        raise LabError(f"apt source {source.uri} can't be read: {error.strerror}") from error
    for line in lines:
        words = line.split("#", 1)[0].split()
        if words:
            return Source(words[0], source.suite, source.components, source.signed_by)
    raise LabError(f"apt source {source.uri} lists no mirror: put one into {match['path']}")


def choose_mirror(sources: Iterable[Source], codename: str) -> Mirror:
    """Pick the archive that serves the machine's own release."""
    usable = [source for source in sources if "main" in source.components and "://" in source.uri]
    main = [source for source in usable if source.suite in (codename, "stable")]
    if not main:
        raise LabError(
            f"no Debian archive for {codename} found in /etc/apt/sources.list or sources.list.d: "
            "the lab needs a Debian 12 or newer machine with an apt mirror"
        )
    names = (f"{codename}-security", "stable-security")
    security = [source for source in usable if source.suite in names]
    return Mirror(
        main=main[0].uri.rstrip("/"),
        security=security[0].uri.rstrip("/") if security else "",
        keyring=main[0].signed_by or DEFAULT_KEYRING,
    )


def os_codename(os_release: str) -> str:
    """VERSION_CODENAME of an os-release text; only Debian will do."""
    fields = dict(line.partition("=")[::2] for line in os_release.splitlines() if "=" in line)
    identity = fields.get("ID", "").strip('"')
    if identity != "debian":
        found = identity or "an unknown system"
        raise LabError(f"this machine runs {found}, but the lab needs Debian 12 or newer")
    return fields.get("VERSION_CODENAME", "").strip('"') or "sid"


def machine_codename() -> str:
    """The release of this machine."""
    return os_codename(Path("/etc/os-release").read_text())


def machine_mirror() -> Mirror:
    """The mirror of this machine."""
    return choose_mirror(read_sources(), machine_codename())


def render_one_line(sources: Iterable[Source], signed: bool) -> str:
    """As sources.list; `signed` names the keyring file, for use outside of the guest."""
    lines = []
    for source in sources:
        options = f"[signed-by={source.signed_by}] " if signed and source.signed_by else ""
        lines.append(f"deb {options}{source.uri} {source.suite} {' '.join(source.components)}\n")
    return "".join(lines)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's mirror, read from all shapes that apt sources have."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.apt_sources import (
    DEFAULT_KEYRING,
    Mirror,
    Source,
    choose_mirror,
    os_codename,
    parse_deb822,
    parse_one_line,
    read_sources,
    render_one_line,
    resolve_mirror_list,
)
from lab.errors import LabError

DEB822 = """\
# comment
Types: deb deb-src
# another comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/some.gpg

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEZ
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822() -> None:
    components = ("main", "contrib")
    keyring = "/usr/share/keyrings/some.gpg"
    assert parse_deb822(DEB822) == [
        Source("http://mirror.example/debian", "bookworm", components, keyring),
        Source("http://mirror.example/debian", "bookworm-updates", components, keyring),
        Source("http://mirror.example/debian-security/", "bookworm-security", ("main",), ""),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "deb http://m.example/debian trixie main contrib # note",
            Source("http://m.example/debian", "trixie", ("main", "contrib")),
        ),
        (
            "  deb [arch=amd64 signed-by=/k.gpg,/l.gpg] https://m.example/d trixie main",
            Source("https://m.example/d", "trixie", ("main",), "/k.gpg"),
        ),
        (
            "deb [signed-by=ABCDEF0123] http://m.example/d trixie main",
            Source("http://m.example/d", "trixie", ("main",), ""),
        ),
    ],
)
def test_one_line(line: str, expected: Source) -> None:
    assert parse_one_line(line) == [expected]


@pytest.mark.parametrize(
    "line",
    ["", "# deb http://m.example/d trixie main", "deb-src http://m.example/d trixie main", "deb x"],
)
def test_one_line_without_a_source(line: str) -> None:
    assert parse_one_line(line) == []


def test_reads_both_kinds_of_file_and_mirror_lists(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text("# first one wins\nhttp://a.example/debian priority:1\nhttp://b.example/d\n")
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (parts / "debian.sources").write_text(
        f"Types: deb\nURIs: mirror+file://{mirrors}\nSuites: bookworm\nComponents: main\n"
    )
    (parts / "off.sources.disabled").write_text(DEB822)
    assert [source.uri for source in read_sources(tmp_path)] == [
        "http://one.example/debian",
        "http://a.example/debian",
    ]


def test_mirror_list_that_is_missing() -> None:
    with pytest.raises(LabError, match="can't be read"):
        resolve_mirror_list(Source("mirror+file:/nonexistent/list", "bookworm", ("main",)))


def test_choose_mirror_by_release() -> None:
    sources = [
        Source("http://tools.example/apt", "stable", ("tools",)),
        *parse_deb822(DEB822),
    ]
    assert choose_mirror(sources, "bookworm") == Mirror(
        main="http://mirror.example/debian",
        security="http://mirror.example/debian-security",
        keyring="/usr/share/keyrings/some.gpg",
    )


def test_choose_mirror_without_security() -> None:
    mirror = choose_mirror([Source("http://m.example/d", "trixie", ("main",))], "trixie")
    assert (mirror.security, mirror.keyring) == ("", DEFAULT_KEYRING)
    assert [source.suite for source in mirror.sources("bookworm")] == [
        "bookworm",
        "bookworm-updates",
    ]


def test_choose_mirror_says_what_is_missing() -> None:
    with pytest.raises(LabError, match="no Debian archive for trixie"):
        choose_mirror(parse_deb822(DEB822), "trixie")


def test_sources_of_a_guest_of_another_release() -> None:
    mirror = Mirror("http://m.example/debian", "http://m.example/security", "/k.gpg")
    text = render_one_line(mirror.sources("trixie", ["trixie-backports"]), signed=True)
    assert text.splitlines() == [
        "deb [signed-by=/k.gpg] http://m.example/debian trixie main",
        "deb [signed-by=/k.gpg] http://m.example/debian trixie-updates main",
        "deb [signed-by=/k.gpg] http://m.example/debian trixie-backports main",
        "deb [signed-by=/k.gpg] http://m.example/security trixie-security main",
    ]
    assert "signed-by" not in render_one_line(mirror.sources("trixie"), signed=False)


def test_os_codename() -> None:
    assert os_codename('ID=debian\nVERSION_CODENAME="trixie"\n') == "trixie"
    assert os_codename("ID=debian\n") == "sid"
    with pytest.raises(LabError, match="this machine runs fedora"):
        os_codename("ID=fedora\n")

# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's certificate, read again when its files change: no restart for a renewal."""

from __future__ import annotations

import os
import stat
import threading
from typing import Callable, NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from btfleet.service.errors import SettingsError
from btfleet.service.file_stamp import stamp
from btfleet.service.settings import Tls, read_file


class Pair(NamedTuple):
    """What the files hold, and the Unix time at which the certificate expires."""

    configuration: grpc.ServerCertificateConfiguration
    expires: float


def read_pair(tls: Tls) -> Pair:
    """Reads and checks the files; raises SettingsError if they do not belong together."""
    chain, key = read_file(tls.certificate), read_file(tls.key)
    if _is_open(tls.key):
        raise SettingsError(f"{tls.key} is open to everybody: chmod o= {tls.key}")
    certificates = _certificates(tls.certificate, chain)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        public = load_pem_private_key(key, None).public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{tls.key} is no PEM private key without a password") from None
    try:
        certified = certificates[0].public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{tls.certificate} is for a kind of key that is not known") from None
    if public != certified:
        raise SettingsError(
            f"{tls.key} is not the key of the first certificate in {tls.certificate}: "
            "put the pair that belongs together there"
        )
    ca = None
    if tls.client_ca:
        ca = read_file(tls.client_ca)
        _certificates(tls.client_ca, ca)
    return Pair(
        grpc.ssl_server_certificate_configuration([(key, chain)], ca),
        certificates[0].not_valid_after_utc.timestamp(),
    )


class Certificates:
    """What new connections are offered; a wrong new pair leaves the old one."""

    def __init__(self, tls: Tls, report: Callable[[str | None], None]) -> None:
        """Reads the files. `report` is told of each later reading: None, or what is wrong.

        Raises SettingsError.
        """
        self._tls, self._report, self._lock = tls, report, threading.Lock()
        self._paths = [path for path in tls if path]
        self._stamp = stamp(*self._paths)
        self.pair = read_pair(tls)
        self._given = self.pair

    def credentials(self) -> grpc.ServerCredentials:
        """For a server's port."""
        return grpc.dynamic_ssl_server_credentials(
            self.pair.configuration,
            self._changed,  # type: ignore[arg-type]  # None is documented: no change
            require_client_authentication=self._tls.client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks before each handshake; None: as before."""
        self.reload_if_changed()
        pair = self.pair
        if pair is self._given:
            return None
        self._given = pair
        return pair.configuration

    def reload_if_changed(self) -> None:
        """Reads the files again if they are others than the last time."""
        with self._lock:
            now = stamp(*self._paths)
            if now == self._stamp:
                return
            self._stamp = now
            try:
                self.pair = read_pair(self._tls)
            except SettingsError as exc:
                # Perhaps in between the writing of the two files: the next stamp will differ
                self._report(str(exc))
                return
            self._report(None)


def _is_open(path: str) -> bool:
    """Whether everybody may read or write it."""
    try:
        return bool(stat.S_IMODE(os.stat(path).st_mode) & stat.S_IRWXO)
    except OSError as exc:  # gone since it was read
        raise SettingsError(f"cannot read {path} ({exc.strerror}): put it there") from None


def _certificates(path: str, raw: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError:
        raise SettingsError(f"{path} holds no PEM certificate") from None

"""Certificates for tests, made with the openssl command: good ones, and those that a factory finds one morning."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_CONFIGURATION = """\
[ca]
default_ca = it
[it]
new_certs_dir = {folder}
database = {folder}/index
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
rand_serial = yes
[any]
commonName = supplied
"""


def openssl(*arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    subprocess.run([program, *arguments], check=True, capture_output=True)  # noqa: S603 - fixed words


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; each authority is unknown to those who do not name it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._configuration = folder / "openssl.cnf"
        self._configuration.write_text(_CONFIGURATION.format(folder=folder))
        (folder / "index").touch()
        self.own = self.self_signed("authority")

    def self_signed(self, name: str, host: str = "IP:127.0.0.1") -> Pair:
        pair = self._pair(name)
        files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
        openssl("req", "-x509", "-days", "2", *_new(name, host), *files)
        return pair

    def sign(
        self, name: str, host: str = "IP:127.0.0.1", *, begins_in_days: float = -1, ends_in_days: float = 1
    ) -> Pair:
        pair = self._pair(name)
        request = str(self._folder / f"{name}.csr")
        openssl("req", *_new(name, host), "-keyout", str(pair.key), "-out", request)
        signer = [
            "-config",
            str(self._configuration),
            "-cert",
            str(self.own.certificate),
            "-keyfile",
            str(self.own.key),
        ]
        dates = ["-startdate", _in_days(begins_in_days), "-enddate", _in_days(ends_in_days)]
        openssl("ca", "-batch", "-notext", *signer, *dates, "-in", request, "-out", str(pair.certificate))
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")


def _new(name: str, host: str) -> list[str]:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    return [*key, "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}"]


def _in_days(days: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")

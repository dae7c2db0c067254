"""TLS to a broker: what is trusted, and what its failures mean."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.errors import BrokerRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

_CLOCK = "the clock of this device (`timedatectl`)"
# By OpenSSL's number of the problem with a certificate (x509_vfy.h).
_REMEDIES = {
    9: f"check {_CLOCK}, then the dates of the broker's certificate",
    10: f"renew the broker's certificate; if its dates are right, check {_CLOCK}",
    62: "use a name of the certificate as mqtt.host, or have a certificate made for this one",
    64: "use an address of the certificate as mqtt.host, or have a certificate made for this one",
}
_OTHER_REMEDY = "name the authority that signed it as ca_file, or replace the certificate"


class HandshakeError(OSError):
    """The other end breaks off the handshake, or does not answer it.

    Attributes:
        refusal: Its reason as a TLS alert; None if it sent none.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.refusal = _alert(error)


class TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho leaves to the garbage collector, and keeps the TLS alert.

    Attributes:
        refusal: Why the other end refuses the client; with TLS 1.3 it comes after the handshake.
    """

    refusal: str | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the base class
        """As in the base class, but with a HandshakeError unless the certificate of the other end is the reason."""
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise HandshakeError(error) from error

    def send(self, data: Buffer, flags: int = 0) -> int:
        """As in the base class."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with suppress(OSError):
                self.recv()  # the alert, which paho would leave unread
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As in the base class."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self.refusal = _alert(error)
            raise


def tls_context(ca_file: Path | None, certificate_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the broker's certificate and name verified; the files are those of `BrokerSettings`.

    Raises:
        BrokerRefusedError: A file cannot be read, is not a certificate or key, or the two do not belong together.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = TlsSocket
        if certificate_file is not None:
            # An empty pass phrase: without one OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate_file, key_file, password="")
    except OSError as error:
        files = [str(file) for file in (ca_file, certificate_file, key_file) if file]
        raise BrokerRefusedError(
            what=f"cannot use the TLS files {', '.join(files)}: {error}",
            remedy="correct ca_file, cert_file or key_file of the broker; the key needs to be that of the certificate, "
            "without a pass phrase",
            reason=str(error),
        ) from error
    return context


def untrusted_error(address: str, error: ssl.SSLCertVerificationError) -> BrokerRefusedError:
    """What is wrong with the certificate of the broker, and what to do."""
    return BrokerRefusedError(
        what=f"the certificate of the broker {address} cannot be trusted: {error.verify_message}",
        remedy=_REMEDIES.get(error.verify_code, _OTHER_REMEDY),
        reason=error.verify_message,
    )


def refused_error(address: str, reason: str) -> BrokerRefusedError:
    """The broker breaks off TLS: it refuses or misses the client certificate, or needs another TLS version."""
    return BrokerRefusedError(
        what=f"the broker {address} refuses the TLS connection: {reason}",
        remedy="check what it asks for: a certificate of this client (cert_file, key_file), its dates, who signed it; "
        "TLS 1.2 or newer",
        reason=reason,
    )


def _alert(error: OSError) -> str | None:
    """The alert of the other end, such as ``tlsv13 alert certificate required``."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason and "_ALERT_" in reason else None

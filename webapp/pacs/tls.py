"""TLS of associations and MLLP: the BCP 195 RFC 8996, 9325 profile of PS3.15 B.12, both sides with certificates."""

from __future__ import annotations

import ssl

from .config import PacsConfigError, Tls

# TLS 1.2 with forward secrecy and authenticated encryption; those of TLS 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of who is called: a peer without a certificate of the authority is refused."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of who calls; the peer's certificate must have its host name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls)


def _context(side: int, tls: Tls) -> ssl.SSLContext:
    """Raises PacsConfigError where a file cannot be used."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.authority)
    except (OSError, ssl.SSLError) as error:
        raise PacsConfigError(
            f"tls: {tls.certificate}, {tls.key} and {tls.authority} cannot be used ({error.strerror or error})"
        ) from error
    return context

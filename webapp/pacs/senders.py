"""How outputs reach their destinations: C-STORE, STOW-RS, MLLP, FHIR. Each says what was taken and what was not."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pynetdicom import AE, build_context
from requests import HTTPError, RequestException, Session

from ..store.pacs import Delivery
from .config import (
    DicomDestination,
    FhirDestination,
    Hl7Destination,
    PacsConfig,
    StowDestination,
    secret,
)
from .hl7 import Hl7Error, read_acknowledgement
from .tls import client_context

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 1 << 20
START, END = b"\x0b", b"\x1c\r"


class Undelivered(Exception):
    """An output was not taken. refused: the destination said no; else it could not be reached or did not answer.

    The message has nothing of what was sent.
    """

    def __init__(self, reason: str, *, refused: bool) -> None:
        super().__init__(reason)
        self.refused = refused


class Sender(Protocol):
    """Sends to one destination."""

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Send outputs in their order, and yield each with why it was not taken, or None, as soon as that is known."""
        ...


class DicomSender:
    """A storage SCU: one association for what is sent together."""

    def __init__(self, destination: DicomDestination, config: PacsConfig) -> None:
        self._destination = destination
        self._ae = AE(ae_title=config.ae_title)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = TIMEOUT_S
        self._ae.connection_timeout = TIMEOUT_S
        self._tls: dict[str, Any] = {}
        if destination.tls and config.tls is not None:
            self._tls = {"tls_args": (client_context(config.tls), destination.host)}

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Send by C-STORE; see Sender."""
        datasets = [dcmread(delivery.path) for delivery in deliveries]
        pairs = {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets}
        to = self._destination
        association = self._ae.associate(
            to.host,
            to.port,
            contexts=[build_context(*pair) for pair in sorted(pairs)],
            ae_title=to.ae_title,
            **self._tls,
        )
        if not association.is_established:
            why = "rejected the association" if association.is_rejected else "could not be reached"
            yield from ((delivery, Undelivered(why, refused=False)) for delivery in deliveries)
            return
        try:
            for delivery, ds in zip(deliveries, datasets, strict=True):
                yield delivery, self._store(association, ds)
        finally:
            if association.is_established:
                association.release()

    def _store(self, association: Any, ds: Any) -> Undelivered | None:
        if not association.is_established:
            return Undelivered("the association ended", refused=False)
        try:
            status = association.send_c_store(ds)
        except ValueError:  # no context for it was accepted
            return Undelivered(f"does not take {ds.SOPClassUID.name}", refused=True)
        if "Status" not in status:
            return Undelivered("did not answer C-STORE", refused=False)
        if status.Status == 0 or 0xB000 <= status.Status <= 0xBFFF:
            return None
        # A700: out of resources, which passes.
        return Undelivered(f"answered C-STORE with {status.Status:04X}", refused=not 0xA700 <= status.Status <= 0xA7FF)


class StowSender:
    """A STOW-RS client."""

    def __init__(self, destination: StowDestination, config: PacsConfig) -> None:
        self._client = dicomweb_client(destination, config)

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Send one by one; see Sender."""
        for delivery in deliveries:
            yield delivery, self._store(delivery)

    def _store(self, delivery: Delivery) -> Undelivered | None:
        try:
            answer = self._client.store_instances([dcmread(delivery.path)])
        except HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            return Undelivered(f"answered STOW-RS with {status}", refused=400 <= status < 500 and status != 429)
        except RequestException as error:
            return _unreached(error)
        if getattr(answer, "FailedSOPSequence", None):
            return Undelivered("answered STOW-RS with a failed instance", refused=True)
        return None


class Hl7Sender:
    """An MLLP client: one connection for what is sent together, each message acknowledged before the next."""

    def __init__(self, destination: Hl7Destination, config: PacsConfig) -> None:
        self._destination = destination
        self._tls = client_context(config.tls) if destination.tls and config.tls else None

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Send by MLLP; see Sender. After a failure of the connection the rest waits."""
        lost: Undelivered | None = None
        try:
            with self._connection() as connection:
                for delivery in deliveries:
                    outcome = self._exchange(connection, delivery) if lost is None else lost
                    lost = outcome if outcome is not None and not outcome.refused else lost
                    yield delivery, outcome
        except OSError as error:
            done = _unreached(error)
            yield from ((delivery, done) for delivery in deliveries)

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        with socket.create_connection((self._destination.host, self._destination.port), TIMEOUT_S) as plain:
            if self._tls is None:
                yield plain
                return
            with self._tls.wrap_socket(plain, server_hostname=self._destination.host) as connection:
                yield connection

    def _exchange(self, connection: socket.socket, delivery: Delivery) -> Undelivered | None:
        try:
            connection.sendall(START + delivery.path.read_bytes() + END)
            accepted, code = read_acknowledgement(_receive(connection), delivery.control)
        except OSError as error:
            return _unreached(error, "did not acknowledge")
        except Hl7Error as error:
            return Undelivered(str(error), refused=False)
        return None if accepted else Undelivered(f"acknowledged with {code}", refused=True)


def _receive(connection: socket.socket) -> bytes:
    """Return what is in the next frame of MLLP. Raises OSError or Hl7Error."""
    received = b""
    while END not in received:
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionError("closed")
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            raise Hl7Error("the acknowledgement does not end")
    return received[: received.index(END)].lstrip(START)


class FhirSender:
    """Posts transactions, or writes them as files that appear whole."""

    def __init__(self, destination: FhirDestination, config: PacsConfig) -> None:
        self._destination = destination
        self._session = http_session(destination, config)

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Send one by one; see Sender."""
        for delivery in deliveries:
            if self._destination.folder is not None:
                yield delivery, self._write(self._destination.folder, delivery)
            else:
                yield delivery, self._post(delivery)

    def _post(self, delivery: Delivery) -> Undelivered | None:
        headers = {"Content-Type": "application/fhir+json; charset=utf-8", "Accept": "application/fhir+json"}
        try:
            with self._session.post(
                self._destination.url or "", data=delivery.path.read_bytes(), headers=headers, timeout=TIMEOUT_S
            ) as answer:
                status = answer.status_code
        except RequestException as error:
            return _unreached(error)
        if status < 300:
            return None
        return Undelivered(f"answered with {status}", refused=400 <= status < 500 and status != 429)

    @staticmethod
    def _write(folder: Path, delivery: Delivery) -> Undelivered | None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{delivery.id}.part"
            with part.open("wb") as file:
                file.write(delivery.path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / f"{delivery.id}.json")
        except OSError as error:
            return Undelivered(f"the folder cannot be written ({error.strerror})", refused=False)
        return None


def _unreached(error: BaseException, otherwise: str = "could not be reached") -> Undelivered:
    """Return why a connection came to nothing; a certificate that one side does not accept is told from a peer away."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, ssl.SSLError):
            return Undelivered(f"TLS failed ({(one.reason or 'unknown').replace('_', ' ').lower()})", refused=False)
        seen.add(id(one))
        parts = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        waiting += [part for part in parts if isinstance(part, BaseException) and id(part) not in seen]
    return Undelivered(otherwise, refused=False)


def http_session(server: Any, config: PacsConfig) -> Session:
    """Return a session for a server of the configuration, with its password and the authority of its certificate.

    With `tls` of the server, our own certificate is shown to it.
    """
    session = requests.Session()
    session.trust_env = False  # no proxies and no .netrc: where patient data go stands in the configuration alone
    if server.user is not None:
        session.auth = (server.user, secret(server.password_variable) or "")
    if server.tls and config.tls is not None:
        session.cert = (str(config.tls.certificate), str(config.tls.key))
        session.verify = str(config.tls.authority)
    if server.authority is not None:
        session.verify = str(server.authority)
    return session


class _LimitedSession(Session):
    """A session that does not wait for ever, which the DICOMweb client would do."""

    def request(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Send a request with a time limit."""
        kwargs.setdefault("timeout", TIMEOUT_S)
        return super().request(*args, **kwargs)


def dicomweb_client(server: Any, config: PacsConfig) -> DICOMwebClient:
    """Return a client for a DICOMweb server of the configuration."""
    session = _LimitedSession()
    session.__dict__.update(http_session(server, config).__dict__)
    return DICOMwebClient(url=server.url.rstrip("/"), session=session)


def open_sender(destination: Any, config: PacsConfig) -> Sender:
    """Return the sender of a destination."""
    if isinstance(destination, DicomDestination):
        return DicomSender(destination, config)
    if isinstance(destination, StowDestination):
        return StowSender(destination, config)
    if isinstance(destination, Hl7Destination):
        return Hl7Sender(destination, config)
    return FhirSender(destination, config)

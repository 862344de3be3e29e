"""The storage SCP: verification, storage and storage commitment, for the peers of the configuration."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from ..store import StoreUnavailable
from ..store.pacs import CHANGED, NEW, Output, PacsQueue
from .config import PacsConfig, Peer
from .metrics import PacsMetrics
from .objects import RADIOGRAPHS, MalformedObject, inspect
from .transfer_syntaxes import TRANSFER_SYNTAXES

MAX_PDU_BYTES = 256 * 1024
# Of a PDU that some peer sends all the same; association requests with many contexts are long, too.
LONGEST_PDU_BYTES = 4 * 1024 * 1024
# Below so much free space nothing more is received: the database and what is being written need some.
ROOM_BYTES = 1024 * 1024
# A PDU that is longer than this brings part of an object.
SHORT_PDU_BYTES = 4096
# What is not taken is read to its end all the same, and so answered with a status, unless it does not end.
LONGEST_DISCARDED_BYTES = 8 * 1024**3
ABORT = bytes.fromhex("07000000000400000200")
SUCCESS, DUPLICATE, NO_RESOURCES, TOO_LONG, MISMATCH, MALFORMED = 0x0000, 0x0111, 0xA700, 0xA701, 0xA900, 0xC000
OVER_THE_LIMIT, NO_ROOM = "over the limit", "no resources"
COMMITMENT = "commitment"

log = logging.getLogger(__name__)


class _Nowhere:
    """In place of the file of an object that is not taken: it keeps nothing. name: of that file. status: the answer."""

    def __init__(self, name: str, status: int) -> None:
        self.name, self.status, self.file = name, status, self

    def write(self, content: bytes) -> int:
        """Write nothing."""
        return len(content)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _LimitedSocket(AssociationSocket):
    """A connection on which of no object more than `limit` bytes are kept, and no PDU exceeds LONGEST_PDU_BYTES."""

    limit = 0
    received = 0
    folder = Path()

    def recv(self, nr_bytes: int) -> bytearray:
        """Return so many bytes, fewer where the peer closes. Raises ConnectionError for too many."""
        self.received += nr_bytes
        if nr_bytes > LONGEST_PDU_BYTES or self.received > self.limit + LONGEST_DISCARDED_BYTES:
            self._abort(OVER_THE_LIMIT)
        if self.received > self.limit:
            self._discard(OVER_THE_LIMIT, TOO_LONG)
        elif nr_bytes > SHORT_PDU_BYTES and shutil.disk_usage(self.folder).free < ROOM_BYTES + nr_bytes:
            self._discard(NO_ROOM, NO_RESOURCES)
        content = bytearray(nr_bytes)
        view, read = memoryview(content), 0
        while read < nr_bytes and self.socket is not None:
            count = self.socket.recv_into(view[read:], nr_bytes - read)
            if not count:
                break
            read += count
        return content if read == nr_bytes else bytearray(bytes(view[:read]))

    def _discard(self, reason: str, status: int) -> None:
        """Delete what has come of an object, and keep nothing of the rest; once it has come, `status` answers it."""
        message: Any = self.assoc.dimse.message
        file = getattr(message, "_data_set_file", None)
        if isinstance(file, _Nowhere):
            return
        if file is None:
            self._abort(reason)
        log.warning("An object is not taken: %s", reason)
        self.on_refusal(reason)
        with contextlib.suppress(OSError):  # what it still holds finds no room
            file.close()
        Path(file.name).unlink(missing_ok=True)
        message._data_set_file = _Nowhere(file.name, status)

    def _abort(self, reason: str) -> NoReturn:
        """Abort the association, since an object that is not received to its end cannot be answered."""
        log.warning("An object was cut off: %s", reason)
        self.on_refusal(reason)
        if self.socket is not None:
            self.socket.sendall(ABORT)
        raise ConnectionError(reason)

    def on_refusal(self, reason: str) -> None:
        """Be told of a refusal."""


class _Server(ThreadedAssociationServer):
    """A server that a silent client does not hold up: TLS is agreed on in the thread of its connection."""

    idle_s = 0.0
    peers: tuple[Peer, ...] = ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the address is one of a peer; others take no place, however long they are silent."""
        return any(peer.sends_from(client_address[0]) for peer in self.peers)

    def get_request(self) -> tuple[Any, Any]:
        """Return the next connection and its address."""
        connection, address = self.socket.accept()  # type: ignore[union-attr]
        connection.settimeout(self.idle_s)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log why a connection came to nothing, without what was sent or from where."""
        log.warning("A connection came to nothing: %s", type(sys.exc_info()[1]).__name__)


class StorageScp:
    """Listens for associations until closed. Raises OSError where it cannot listen.

    on_new: called after an object was put into the queue.
    """

    def __init__(
        self,
        config: PacsConfig,
        queue: PacsQueue,
        metrics: PacsMetrics,
        on_new: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config, self._queue, self._metrics, self._on_new = config, queue, metrics, on_new
        # Objects are written as they come, on the file system of the spool.
        _config.STORE_RECV_CHUNKED_DATASET = True
        self._former_folder, tempfile.tempdir = tempfile.tempdir, str(queue.spool.incoming)
        ae = AE(ae_title=config.ae_title)
        ae.require_called_aet = True
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = config.max_associations
        ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = config.idle_s
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel)
        for uid in self._sop_classes():
            ae.add_supported_context(uid, list(TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_DIMSE_RECV, self._on_message),
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_ESTABLISHED, lambda _event: metrics.association("established")),
            (evt.EVT_ABORTED, lambda _event: metrics.association("aborted")),
            (evt.EVT_CONN_CLOSE, self._on_close),
        ]
        self._ae = ae
        server: Any = ae.make_server(
            (config.host, config.port),
            ssl_context=tls,
            evt_handlers=handlers,
            server_class=_Server,
            request_handler=self._request_handler(),
        )
        server.idle_s, server.peers = config.idle_s, config.peers
        self._server = server
        ae._servers.append(server)  # which `shutdown` ends

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.socket.getsockname()[1]) if self._server.socket is not None else 0

    def serve(self) -> None:
        """Answer until `close` is called."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Take no more associations, and end those that are open."""
        self._ae.shutdown()
        tempfile.tempdir = self._former_folder

    def _sop_classes(self) -> list[str]:
        if self._config.accept == "radiographs":
            return list(RADIOGRAPHS)
        return sorted({str(context.abstract_syntax) for context in AllStoragePresentationContexts} | set(RADIOGRAPHS))

    def _request_handler(self) -> type[RequestHandler]:
        limit = int(self._config.max_object_mb * 1024 * 1024) + LONGEST_PDU_BYTES
        metrics, folder = self._metrics, self._queue.spool.incoming

        class Limited(RequestHandler):
            def _create_association(self) -> Any:
                if isinstance(self.request, ssl.SSLSocket):
                    self.request.do_handshake()
                association = super()._create_association()
                limited: Any = association.dul.socket
                limited.__class__ = _LimitedSocket  # a second one would tell the association of a second connection
                limited.limit, limited.folder, limited.on_refusal = limit, folder, metrics.refused
                return association

        return Limited

    def _peer(self, event: Any) -> Peer | None:
        title = event.assoc.requestor.primitive.calling_ae_title.strip()
        return next((peer for peer in self._config.peers if peer.ae_title == title), None)

    def _on_requested(self, event: Any) -> None:
        """Reject whom the configuration does not name, by title and address."""
        peer = self._peer(event)
        if peer is not None and peer.sends_from(event.assoc.requestor.address):
            return
        self._metrics.association("rejected")
        log.warning("An association was rejected: its calling AE title or its address is not that of a peer")
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)
        event.assoc.kill()  # once the rejection is sent

    @staticmethod
    def _on_message(event: Any) -> None:
        """Count the bytes of the next message from zero."""
        event.assoc.dul.socket.received = 0

    @staticmethod
    def _on_close(event: Any) -> None:
        """Delete what has come of an object whose association was cut, and free the place of one that never began."""
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)  # else its thread waits for a request until `idle_s` is over
        unfinished = event.assoc.dimse.message
        file = getattr(unfinished, "_data_set_file", None)
        if file is not None:
            with contextlib.suppress(OSError):  # what it still holds finds no room
                file.close()
            Path(file.name).unlink(missing_ok=True)

    def _on_store(self, event: Any) -> int:
        """Put an object into the queue; only what is on the disk is answered with success."""
        if isinstance(event.request._dataset_file, _Nowhere):
            return event.request._dataset_file.status
        try:
            return self._take(event)
        except MalformedObject as error:
            log.warning("An object was refused: %s", error)
            self._metrics.refused("malformed")
            return MALFORMED
        except (StoreUnavailable, OSError) as error:
            log.error("An object was refused for now: %s", error if isinstance(error, StoreUnavailable) else "disk")
            self._metrics.refused(NO_ROOM)
            return NO_RESOURCES
        finally:
            event.assoc.dul._idle_timer.restart()  # the time that this took is not a silence of the peer

    def _take(self, event: Any) -> int:
        path = Path(event.dataset_path)
        received, _ = inspect(path)
        request = event.request
        if (received.sop_class_uid, received.sop_instance_uid) != (
            request.AffectedSOPClassUID,
            request.AffectedSOPInstanceUID,
        ):
            self._metrics.refused("mismatch")
            return MISMATCH
        peer = self._peer(event)
        source = f"peer:{peer.ae_title}" if peer is not None else ""
        outcome = self._queue.receive(path, received, source=source, quiet_s=self._config.quiet_s)
        self._metrics.received(outcome)
        if outcome == CHANGED:
            log.warning("An object was refused: another one with its SOP instance UID is here")
            return DUPLICATE
        if outcome == NEW:
            self._on_new()
        return SUCCESS

    def _on_action(self, event: Any) -> tuple[int, Dataset | None]:
        """Accept a request for storage commitment, whose outcome is delivered like any other output."""
        peer = self._peer(event)
        if event.action_type != 1 or peer is None:
            return 0x0123, None  # no such action
        try:
            asked = event.action_information
            references = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ]
            transaction = str(UID(asked.TransactionUID))
        except Exception:  # what a peer sends may be anything
            return 0x0115, None  # invalid argument value
        held = [self._queue.holds(instance, sop_class) for sop_class, instance in references]
        content = {"transaction": transaction, "references": references, "held": held}
        try:
            self._queue.add_delivery(
                Output(f"{COMMITMENT}:{peer.ae_title}", COMMITMENT, transaction, json.dumps(content).encode())
            )
        except StoreUnavailable:
            return 0x0213, None  # resource limitation
        self._on_new()
        return SUCCESS, None

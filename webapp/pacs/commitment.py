"""The outcome of storage commitment (PS3.4 J): N-EVENT-REPORT on an association of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from ..store.pacs import Delivery
from .config import PacsConfig, Peer
from .senders import TIMEOUT_S, Undelivered
from .tls import client_context

# Event types, and why an object is not committed: there is none.
ALL_HELD, SOME_NOT_HELD, NO_SUCH_OBJECT = 1, 2, 0x0112


class CommitmentSender:
    """Reports to one peer, at `commitment_host` and `commitment_port` of the configuration."""

    def __init__(self, peer: Peer, config: PacsConfig) -> None:
        self._peer, self._config = peer, config
        self._ae = AE(ae_title=config.ae_title)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = TIMEOUT_S
        self._ae.connection_timeout = TIMEOUT_S
        self._ae.add_requested_context(StorageCommitmentPushModel)

    def send(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, Undelivered | None]]:
        """Report outcomes; see senders.Sender."""
        peer = self._peer
        host = peer.commitment_host or peer.address[0]
        tls = {} if self._config.tls is None else {"tls_args": (client_context(self._config.tls), host)}
        # The reporting side is the SCP of the service although it asks for the association.
        association = self._ae.associate(
            host,
            peer.commitment_port or 104,
            ae_title=peer.ae_title,
            ext_neg=[build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)],
            **tls,  # type: ignore[arg-type]
        )
        if not association.is_established:
            why = Undelivered("could not be reached for storage commitment", refused=False)
            yield from ((delivery, why) for delivery in deliveries)
            return
        try:
            for delivery in deliveries:
                yield delivery, _report(association, delivery)
        finally:
            if association.is_established:
                association.release()


def _report(association: Any, delivery: Delivery) -> Undelivered | None:
    if not association.is_established:
        return Undelivered("the association ended", refused=False)
    report, event = outcome(json.loads(delivery.path.read_bytes()))
    try:
        status, _ = association.send_n_event_report(
            report, event, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except ValueError:
        return Undelivered("does not take outcomes of storage commitment", refused=True)
    if "Status" not in status:
        return Undelivered("did not answer N-EVENT-REPORT", refused=False)
    return None if status.Status == 0 else Undelivered(f"answered with {status.Status:04X}", refused=True)


def outcome(content: dict[str, Any]) -> tuple[Dataset, int]:
    """Return the event information and the event type of a request, as `StorageScp` has put it into the queue."""
    report = Dataset()
    report.TransactionUID = content["transaction"]
    held: list[Dataset] = []
    missing: list[Dataset] = []
    for (sop_class, instance), is_held in zip(content["references"], content["held"], strict=True):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        if not is_held:
            item.FailureReason = NO_SUCH_OBJECT
        (held if is_held else missing).append(item)
    if held:
        report.ReferencedSOPSequence = held
    if missing:
        report.FailedSOPSequence = missing
    return report, SOME_NOT_HELD if missing else ALL_HELD

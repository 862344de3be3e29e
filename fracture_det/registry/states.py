"""Which version is served, which runs in its shadow, and the history of it: one file, replaced as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from fracture_det.registry.errors import RegistryError
from fracture_det.structures.strict_json import convert_json, parse_json

FORMAT = "fracture_det model states 1"
STATE_FILE, LOCK_FILE, UNFINISHED = "state.json", ".lock", ".unfinished-"
CANDIDATE, SHADOW, SERVED, RETIRED = "candidate", "shadow", "served", "retired"
STATES = (CANDIDATE, SHADOW, SERVED, RETIRED)


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the history: who did what to which version, when and why.

    state: of the version from then on. verdict: SHA-256 of the gate's verdict that allowed a promotion.
    without_gate: why there was none.
    """

    at: str
    by: str
    action: str
    version: str
    state: str
    reason: str = ""
    verdict: str | None = None
    without_gate: str | None = None


class States(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a state.json. states: by version; one that is not in it is a candidate.

    before: versions that were served, the latest last, for `rollback`. pinned: version -> why.
    """

    states: dict[str, str] = {}
    before: tuple[str, ...] = ()
    pinned: dict[str, str] = {}
    history: tuple[Change, ...] = ()

    def of(self, name: str) -> str:
        """Return the state of a version."""
        return self.states.get(name, CANDIDATE)

    def named(self, state: str) -> str | None:
        """Return the version that is SERVED, or the SHADOW, or None."""
        return next((name for name, current in self.states.items() if current == state), None)

    @property
    def served(self) -> str | None:
        """The version that is served, or None."""
        return self.named(SERVED)

    @property
    def shadow(self) -> str | None:
        """The version that runs in the shadow of the served one, or None."""
        return self.named(SHADOW)

    def after(self, change: Change, **changes: Any) -> States:
        """Return the states after a change, with a version that gave way to it in its new state.

        Only one version is served, and one the shadow: a served one that gives way is retired, a shadow a candidate.
        """
        states = dict(self.states)
        for name, current in self.states.items():
            if name != change.version and current == change.state and current in (SERVED, SHADOW):
                states[name] = RETIRED if current == SERVED else CANDIDATE
        states[change.version] = change.state
        return msgspec.structs.replace(self, states=states, history=(*self.history, change), **changes)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_states(folder: Path) -> States:
    """Return what the state.json of a registry says; nothing is served where there is none.

    It is replaced as a whole, so that no lock is needed. Raises RegistryError where it is damaged.
    """
    path = folder / STATE_FILE
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        if not folder.is_dir():
            raise RegistryError(f"{folder}: there is no such registry; `fracture-det models add` makes one") from None
        return States()
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise RegistryError(f"{path}: format: expected {FORMAT!r}")
    if (said := content.pop("sha256", None)) != _sha256_of(content):
        raise RegistryError(
            f"{path}: was changed or damaged: sha256: its content gives {_sha256_of(content)}, it says {said}"
        )
    try:
        states = convert_json(content, States)
    except ValueError as error:
        raise RegistryError(f"{path}: {error}") from error
    _check(states, path)
    return states


def write_states(folder: Path, states: States) -> None:
    """Replace the state.json of a registry: after a crash there is the former one or this, and both are whole."""
    content = msgspec.to_builtins(states)
    text = json.dumps({"format": FORMAT, "sha256": _sha256_of(content), **content}, indent=1) + "\n"
    replace_file(folder / STATE_FILE, text.encode())


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, whole or not at all, and on the disk when this returns."""
    temporary = path.with_name(f"{UNFINISHED}{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a registry against other writers, waiting for them. The lock of a process that was killed is free."""
    try:
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise RegistryError(f"{folder}: the registry cannot be changed: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha256_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check(states: States, path: Path) -> None:
    for name, state in states.states.items():
        if state not in STATES:
            raise RegistryError(f"{path}: states: {name}: expected one of {', '.join(STATES)}, got {state!r}")
    for state in (SERVED, SHADOW):
        if list(states.states.values()).count(state) > 1:
            raise RegistryError(f"{path}: states: more than one version is {state}")

"""A folder of versions, and every change of their states: each whole, on the disk, and one at a time."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fracture_det.registry.errors import RegistryError
from fracture_det.registry.states import (
    CANDIDATE,
    RETIRED,
    SERVED,
    SHADOW,
    UNFINISHED,
    Change,
    States,
    locked,
    now,
    read_states,
    replace_file,
    sync_folder,
    write_states,
)
from fracture_det.registry.versions import Version, read_version, verify_version

FOLDER_VARIABLE, KEYS_VARIABLE = "FRACTURE_MODELS", "FRACTURE_MODELS_KEYS"
DEFAULT_FOLDER, KEYS_SUFFIX = "models", ".keys"
VERSIONS_FOLDER, VERDICTS_FOLDER = "versions", "verdicts"


@dataclass(frozen=True)
class Grounds:
    """Why a version may be served: the gate's verdict as it was read, or why there is none."""

    verdict: bytes | None = None
    without_gate: str | None = None


# From the name of the served version, None where there is none, and the version to be promoted; raises ValueError
# against it. Only the name: a served version that is damaged must not stand in the way of the next one.
Judge = Callable[[str | None, Version], Grounds]


@dataclass(frozen=True)
class Registry:
    """The registry in `folder`. keys: folder of the keys, outside it. by: who makes changes.

    Methods raise RegistryError, and OSError where the disk fails.
    """

    folder: Path
    keys: Path
    by: str = ""

    @classmethod
    def at(cls, folder: str | Path | None = None, keys: str | Path | None = None) -> Registry:
        """Return the registry in a folder, by default that of FRACTURE_MODELS, else `models`.

        keys: by default the folder of FRACTURE_MODELS_KEYS, else the one beside it with `.keys` at the end of its name.
        """
        path = Path(folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).absolute()
        beside = path.with_name(path.name + KEYS_SUFFIX)
        return cls(path, Path(keys or os.environ.get(KEYS_VARIABLE) or beside).absolute(), _user())

    @property
    def states(self) -> States:
        """What is served, and the history."""
        return read_states(self.folder)

    @property
    def names(self) -> list[str]:
        """The names of all versions, in order."""
        versions = self.folder / VERSIONS_FOLDER
        return sorted(path.name for path in versions.iterdir() if path.is_dir()) if versions.is_dir() else []

    def find(self, text: str) -> str:
        """Return the one version that has `text` as its name or in its hash."""
        found = [name for name in self.names if text and (name == text or name.rpartition("-")[2].startswith(text))]
        if len(found) != 1:
            what = f"{len(found)} versions" if found else "no version"
            raise RegistryError(f"{self.folder}: there is {what} {text!r}; it has {', '.join(self.names) or 'none'}")
        return found[0]

    def path_of(self, name: str) -> Path:
        """Return the folder of a version."""
        return self.folder / VERSIONS_FOLDER / name

    def read(self, name: str) -> Version:
        """Return a version by its whole name, without verifying it."""
        return read_version(self.path_of(name))

    def verify(self, name: str) -> Version:
        """Return a version by its whole name, once every byte of it is as it was signed."""
        if not self.path_of(name).is_dir():
            raise RegistryError(f"{self.folder}: there is no version {name}")
        return verify_version(self.path_of(name), self.keys)

    def served_name(self) -> str:
        """Return the name of the version that is served."""
        if (name := self.states.served) is None:
            raise RegistryError(f"{self.folder}: no version is served yet; see `fracture-det models promote`")
        return name

    def publish(self, folder: Path, name: str) -> Version:
        """Give an unfinished version its name; the lock must be held, and its files be on the disk."""
        target = self.path_of(name)
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        sync_folder(target.parent)
        sync_folder(self.folder)
        return self.verify(name)

    def promote(self, name: str, judge: Judge, *, reason: str = "") -> Change:
        """Serve a version in place of the one that is served now.

        judge: asked while no other change can be made. Raises RegistryError where one of the two is pinned, the version
        is served or retired, or not as it was signed.
        """
        with locked(self.folder):
            states, version = self.states, self.verify(name)
            before = states.served
            if states.of(name) in (SERVED, RETIRED):
                hint = "; `fracture-det models shadow` takes it back in" if states.of(name) == RETIRED else ""
                raise RegistryError(f"{name}: cannot be promoted: it is {states.of(name)}{hint}")
            for pinned in (name, before):
                if pinned in states.pinned:
                    raise RegistryError(f"{pinned}: is pinned ({states.pinned[pinned]}); nothing was changed")
            grounds = judge(before, version)
            change = self._change("promote", name, SERVED, reason, without_gate=grounds.without_gate)
            if grounds.verdict is not None:
                change = msgspec.structs.replace(change, verdict=self._keep_verdict(grounds.verdict))
            stack = states.before if before is None else (*states.before, before)
            write_states(self.folder, states.after(change, before=stack))
        return change

    def rollback(self, *, reason: str = "") -> Change:
        """Serve the version again that was served before; a pin does not hinder it."""
        with locked(self.folder):
            states = self.states
            if not states.before:
                raise RegistryError(f"{self.folder}: no version was served before {states.served or 'this'}")
            *stack, name = states.before
            self.verify(name)
            change = self._change("rollback", name, SERVED, reason)
            write_states(self.folder, states.after(change, before=tuple(stack)))
        return change

    def shadow(self, name: str, *, reason: str = "") -> Change:
        """Let a version run in the shadow of the served one, instead of another."""
        with locked(self.folder):
            states = self.states
            if states.of(name) == SERVED:
                raise RegistryError(f"{name}: it is served")
            self.verify(name)
            return self._write(states, self._change("shadow", name, SHADOW, reason))

    def stop_shadow(self, *, reason: str = "") -> Change:
        """Let no version run in the shadow; the one that did is a candidate again."""
        with locked(self.folder):
            states = self.states
            if states.shadow is None:
                raise RegistryError(f"{self.folder}: no version runs in the shadow")
            return self._write(states, self._change("stop shadow", states.shadow, CANDIDATE, reason))

    def retire(self, name: str, *, reason: str = "") -> Change:
        """Dismiss a version that is not served."""
        with locked(self.folder):
            states = self.states
            if states.of(name) == SERVED:
                raise RegistryError(f"{name}: it is served; promote another, or roll back")
            return self._write(states, self._change("retire", self.read(name).name, RETIRED, reason))

    def pin(self, name: str, *, reason: str) -> Change:
        """Hold a version: while it is served no other is promoted; while it is not, it is not."""
        with locked(self.folder):
            states = self.states
            change = self._change("pin", self.read(name).name, states.of(name), reason)
            write_states(self.folder, states.after(change, pinned={**states.pinned, name: reason}))
        return change

    def unpin(self, name: str, *, reason: str = "") -> Change:
        """Hold a version no longer."""
        with locked(self.folder):
            states = self.states
            if name not in states.pinned:
                raise RegistryError(f"{name}: is not pinned")
            change = self._change("unpin", name, states.of(name), reason)
            pinned = {other: why for other, why in states.pinned.items() if other != name}
            write_states(self.folder, states.after(change, pinned=pinned))
        return change

    def _write(self, states: States, change: Change) -> Change:
        write_states(self.folder, states.after(change))
        return change

    def _change(self, action: str, name: str, state: str, reason: str, *, without_gate: str | None = None) -> Change:
        return Change(now(), self.by, action, name, state, reason, without_gate=without_gate)

    def _keep_verdict(self, content: bytes) -> str:
        """Write a verdict under its SHA-256, which is returned."""
        digest = hashlib.sha256(content).hexdigest()
        folder = self.folder / VERDICTS_FOLDER
        folder.mkdir(exist_ok=True)
        replace_file(folder / f"{digest}.json", content)
        sync_folder(self.folder)
        return digest


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left; the lock must be held."""
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())

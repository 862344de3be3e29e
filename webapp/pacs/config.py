"""The configuration of the node: a TOML file, checked when it is read."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Port = Annotated[int, Field(ge=1, le=65_535)]
# PS3.5, AE: up to 16 characters without backslash and control characters.
AeTitle = Annotated[str, Field(pattern=r"^[ -\[\]-~]{1,16}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class PacsConfigError(ValueError):
    """The configuration cannot be used; the message names the file, the field, the value and what is expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True)


class Tls(_Section):
    """TLS as PS3.15 B.12 wants it (BCP 195). Both sides show a certificate that `authority` signed."""

    certificate: Path
    key: Path
    authority: Path


class Peer(_Section):
    """A system that may send objects. address: its IP addresses or networks. answer_to: names of destinations.

    commitment_host, commitment_port: where it listens for the outcome of storage commitment; by default the first of
    `address`, which must then be one address and no network, and 104.
    """

    ae_title: AeTitle
    address: tuple[str, ...]
    answer_to: tuple[Name, ...]
    commitment_host: str | None = None
    commitment_port: Port | None = None

    @field_validator("address", mode="before")
    @classmethod
    def _are_networks(cls, address: object) -> object:
        addresses = [address] if isinstance(address, str) else address
        if not isinstance(addresses, list | tuple) or not addresses:
            raise ValueError("expected an IP address, a network such as 10.1.0.0/16, or a list of them")
        for one in addresses:
            ipaddress.ip_network(one)
        return addresses

    def sends_from(self, address: str) -> bool:
        """Return whether an IP address is one of the peer's."""
        actual = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(actual, "ipv4_mapped", None)
        return any((mapped or actual) in ipaddress.ip_network(network) for network in self.address)


class DicomDestination(_Section):
    """A storage SCP that takes DICOM objects."""

    kind: Literal["dicom"]
    name: Name
    host: str
    port: Port
    ae_title: AeTitle
    tls: bool = False
    outputs: tuple[Literal["sr", "gsps", "sc", "pdf"], ...] = ("sr", "gsps", "sc")


class StowDestination(_Section):
    """A DICOMweb server that takes DICOM objects by STOW-RS. password_variable: of the environment."""

    kind: Literal["stow"]
    name: Name
    url: str = Field(pattern=r"^https?://")
    user: str | None = None
    password_variable: str | None = None
    authority: Path | None = None
    tls: bool = False
    outputs: tuple[Literal["sr", "gsps", "sc", "pdf"], ...] = ("sr", "gsps", "sc")


class Hl7Destination(_Section):
    """A system that takes ORU^R01 over MLLP. encoding: as MSH-18 names it."""

    kind: Literal["hl7"]
    name: Name
    host: str
    port: Port
    tls: bool = False
    application: str = "RIS"
    facility: str = "HOSPITAL"


class FhirDestination(_Section):
    """A FHIR R4 server that takes a transaction at `url`, or a folder in which one file per answer is written."""

    kind: Literal["fhir"]
    name: Name
    url: str | None = Field(default=None, pattern=r"^https?://")
    folder: Path | None = None
    user: str | None = None
    password_variable: str | None = None
    authority: Path | None = None
    tls: bool = False

    @model_validator(mode="after")
    def _goes_somewhere(self) -> FhirDestination:
        if (self.url is None) == (self.folder is None):
            raise ValueError("expected either url or folder")
        return self


Destination = Annotated[
    DicomDestination | StowDestination | Hl7Destination | FhirDestination, Field(discriminator="kind")
]


class Poll(_Section):
    """A DICOMweb server that is asked by QIDO-RS for new instances, which are fetched by WADO-RS."""

    name: Name
    url: str = Field(pattern=r"^https?://")
    user: str | None = None
    password_variable: str | None = None
    authority: Path | None = None
    tls: bool = False
    every_s: float = Field(default=30.0, ge=1, le=86_400)
    days: int = Field(default=1, ge=0, le=3650)
    modalities: tuple[str, ...] = ("CR", "DX")
    answer_to: tuple[Name, ...]


class Folder(_Section):
    """A folder in which DICOM files appear. A file that was taken is deleted, one that cannot be goes to `refused`."""

    name: Name
    path: Path
    every_s: float = Field(default=5.0, ge=0.1, le=86_400)
    answer_to: tuple[Name, ...]


class PacsConfig(_Section):
    """Everything that can be set of the node; docs/pacs.md has the table."""

    ae_title: AeTitle = "FRACTURE_DET"
    host: str = "127.0.0.1"
    port: Port = 11_112
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=11_180, ge=0, le=65_535)
    quiet_s: float = Field(default=10.0, ge=0, le=86_400)
    keep_days: float = Field(default=30.0, ge=0.0001, le=3650)
    max_object_mb: float = Field(default=256.0, ge=0.01, le=4096)
    max_associations: int = Field(default=10, ge=1, le=200)
    idle_s: float = Field(default=60.0, ge=1, le=3600)
    accept: Literal["all", "radiographs"] = "all"
    unsuitable: Literal["report", "silent"] = "report"
    first_pause_s: float = Field(default=5.0, ge=0.01, le=3600)
    longest_pause_s: float = Field(default=3600.0, ge=0.01, le=86_400)
    give_up_hours: float = Field(default=72.0, ge=0.0001, le=24 * 365)
    institution: str | None = Field(default=None, max_length=64)
    tls: Tls | None = None
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    polls: tuple[Poll, ...] = ()
    folders: tuple[Folder, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> PacsConfig:
        names = [destination.name for destination in self.destinations]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"destinations.name: expected different names, got {name!r} twice")
        titles = [peer.ae_title for peer in self.peers]
        if len(set(titles)) < len(titles):
            raise ValueError("peers.ae_title: expected different titles; a peer may have several addresses")
        known_names = ", ".join(names) or "there is none"
        sources = [("peers", self.peers), ("polls", self.polls), ("folders", self.folders)]
        for section, members in sources:
            for member in members:
                for name in member.answer_to:  # type: ignore[attr-defined]
                    if name not in names:
                        raise ValueError(
                            f"{section}.answer_to: expected a name of [[destinations]] ({known_names}), got {name!r}"
                        )
        if not any(members for _, members in sources):
            raise ValueError("expected at least one of [[peers]], [[polls]] and [[folders]]")
        for section, members in (("destinations", self.destinations), ("polls", self.polls)):
            for known in members:
                if not known.tls:
                    continue
                if self.tls is None:
                    raise ValueError(f"{section}.tls: expected [tls] with certificate, key and authority")
                url = getattr(known, "url", None)
                if url is not None and not url.startswith("https://"):
                    raise ValueError(f"{section}.tls: expected a url that begins with https://, got {url}")
        return self

    def answer_to(self, source: str) -> tuple[Any, ...]:
        """Return the destinations of what came from a source: `peer:TITLE`, `poll:NAME` or `folder:NAME`."""
        kind, _, name = source.partition(":")
        wanted: tuple[str, ...] = ()
        if kind == "peer":
            wanted = next((peer.answer_to for peer in self.peers if peer.ae_title == name), ())
        elif kind == "poll":
            wanted = next((poll.answer_to for poll in self.polls if poll.name == name), ())
        elif kind == "folder":
            wanted = next((folder.answer_to for folder in self.folders if folder.name == name), ())
        return tuple(known for known in self.destinations if known.name in wanted)


def read_config(path: Path) -> PacsConfig:
    """Read a configuration. Raises PacsConfigError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PacsConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PacsConfigError(f"{path}: is not TOML ({error})") from error
    try:
        return PacsConfig(**content)
    except ValidationError as error:
        raise PacsConfigError(f"{path}: {_message(error, content)}") from None


def secret(variable: str | None) -> str | None:
    """Return a password from the environment. Raises PacsConfigError where the variable is not set."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise PacsConfigError(f"the variable {variable}, which the configuration names, is not set")
    return os.environ[variable]


def _message(error: ValidationError, content: dict[str, Any]) -> str:
    """Return the first fault as one sentence with field, value and what is expected."""
    first = error.errors(include_url=False)[0]
    parts = [part for part in first["loc"] if part not in ("dicom", "stow", "hl7", "fhir")]
    field = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in parts)
    value: Any = content
    for part in parts:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return f"{field}: {first['msg']}"
    said = first["msg"].removeprefix("Value error, ")
    is_simple = isinstance(value, str | int | float) and "password" not in field
    return ": ".join(filter(None, (field, said))) + (f", got {value!r}" if is_simple else "")

"""The settings of the page: FRACTURE_* variables, checked when they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "FRACTURE_"
MIN_SECRET_LENGTH = 32
SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


class SettingsError(ValueError):
    """A setting cannot be used; the message names the variable, its value and what is expected."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; each field is the variable FRACTURE_<FIELD>, see docs/api.md.

    `calibration` is a file that makes the detector's scores probabilities; None means raw scores. `score` None means
    the detector's own operating point, `possible_score` None the calibration's or half the operating point, and
    `nms_iou` None what the detector's configuration says. `database_url` None means SQLite in `data_dir`. A rate of 0
    means no limit.
    """

    detector: str = "shipped"
    calibration: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    score: float | None = None
    possible_score: float | None = None
    nms_iou: float | None = None
    model_sha256: str | None = None
    data_dir: Path = Path("instance")
    database_url: str | None = field(default=None, repr=False)
    keep_images: bool = True
    retention_days: float = 1.0
    feedback_days: float = 30.0
    login: bool = False
    secret_key: str | None = field(default=None, repr=False)
    session_hours: float = 12.0
    hostnames: tuple[str, ...] = ()
    trusted_proxies: int = 0
    uploads_per_minute: int = 600
    logins_per_minute: int = 10
    max_upload_mb: float = 16.0
    max_megapixels: float = 64.0
    queue_size: int = 64
    max_batch: int = 4
    max_wait_ms: float = 10.0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if not self.detector.strip():
            raise SettingsError(f"{PREFIX}DETECTOR: expected shipped or scheme:path, got nothing")
        self._check("port", 0, 65_535)
        for name in ("score", "possible_score", "nms_iou"):
            self._check(name, 0, 1)
        for name in ("retention_days", "feedback_days"):
            self._check(name, 0.0001, 3650)
        self._check("session_hours", 0.01, 24 * 30)
        self._check("trusted_proxies", 0, 10)
        for name in ("uploads_per_minute", "logins_per_minute"):
            self._check(name, 0, 1_000_000)
        self._check("max_upload_mb", 0.01, 1024)
        self._check("max_megapixels", 0.01, 178)  # Pillow refuses more
        self._check("queue_size", 1, 1000)
        self._check("max_batch", 1, 64)
        self._check("max_wait_ms", 0, 1000)
        self._check("timeout_s", 1, 3600)
        if self.score is not None and self.possible_score is not None and self.possible_score > self.score:
            raise SettingsError(
                f"{PREFIX}POSSIBLE_SCORE: expected at most {PREFIX}SCORE ({self.score:g}), got {self.possible_score:g}"
            )
        if self.secret_key is not None and len(self.secret_key) < MIN_SECRET_LENGTH:
            raise SettingsError(
                f"{PREFIX}SECRET_KEY: expected at least {MIN_SECRET_LENGTH} characters, got {len(self.secret_key)};"
                ' `python -c "import secrets; print(secrets.token_hex(32))"` makes one'
            )
        if self.login and self.secret_key is None:
            raise SettingsError(f"{PREFIX}LOGIN is on: expected {PREFIX}SECRET_KEY beside it, which has no default")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
        """Read the settings from `environ`; `overrides` that are not None win. An empty variable counts as unset.

        Raises SettingsError.
        """
        values: dict[str, Any] = {}
        for one in fields(cls):
            variable = PREFIX + one.name.upper()
            if text := environ.get(variable, "").strip():
                values[one.name] = _parse(variable, text, PARSERS.get(one.name, float))
        return cls(**values | {name: value for name, value in overrides.items() if value is not None})

    @property
    def kept_for(self) -> str:
        """How long results are kept, in words."""
        return f"{self.retention_days:g} day{'' if self.retention_days == 1 else 's'}"

    @property
    def max_upload_bytes(self) -> int:
        """The largest file that is accepted."""
        return int(self.max_upload_mb * 1024 * 1024)

    @property
    def max_pixels(self) -> int:
        """The most pixels that are decoded."""
        return int(self.max_megapixels * 1_000_000)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            raise SettingsError(f"{PREFIX}{name.upper()}: expected {low:g} to {high:g}, got {value:g}")


def _switch(text: str) -> bool:
    if text.lower() not in SWITCH:
        raise ValueError(text)
    return SWITCH[text.lower()]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


# What is not listed is a number with a fraction.
PARSERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("detector", "host", "model_sha256", "database_url", "secret_key"), str),
    **dict.fromkeys(("calibration", "data_dir"), Path),
    **dict.fromkeys(("keep_images", "login"), _switch),
    **dict.fromkeys(("port", "trusted_proxies", "uploads_per_minute", "logins_per_minute"), int),
    **dict.fromkeys(("queue_size", "max_batch"), int),
    "hostnames": _names,
}
KINDS = {int: "a whole number", float: "a number", _switch: "on or off"}


def _parse(variable: str, text: str, parser: Callable[[str], object]) -> object:
    try:
        return parser(text)
    except ValueError as error:
        raise SettingsError(f"{variable}: expected {KINDS[parser]}, got {text!r}") from error

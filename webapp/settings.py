"""The settings of the page: FRACTURE_* variables, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "FRACTURE_"
MIN_SECRET_LENGTH = 32
# pydantic's types of errors, by what the user should have given.
EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "on or off",
    "bool_type": "on or off",
}
OUT_OF_RANGE = ("greater_than_equal", "less_than_equal", "finite_number")


class SettingsError(ValueError):
    """A setting cannot be used; the message names the variable, its value and what is expected."""


class Settings(BaseSettings):
    """Everything that can be set: arguments, else the variable FRACTURE_<FIELD>, else the default; see docs/api.md.

    `calibration` is a file that makes the detector's scores probabilities; None means raw scores. `score` None means
    the detector's own operating point, `possible_score` None the calibration's or half the operating point, and
    `nms_iou` None what the detector's configuration says. `suitability` off means that every picture is analysed,
    whatever it shows. `former_minutes` is how long the version that was served
    before stays loaded. `database_url` None means SQLite in `data_dir`, `audit_dir` None the folder beside it with
    `.audit` at the end of its name, and `audit_key` None a key file there. `watch_reference` is a file of `fracture-det
    watch reference`; None means the shipped one, where its detector is served. A rate of 0 means no limit. An empty
    variable counts as unset. Raises SettingsError.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    detector: str = "shipped"
    calibration: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    worker: Literal["upload-limit", "gthread"] = "upload-limit"
    score: float | None = Field(default=None, ge=0, le=1)
    possible_score: float | None = Field(default=None, ge=0, le=1)
    nms_iou: float | None = Field(default=None, ge=0, le=1)
    suitability: bool = True
    model_sha256: str | None = None
    former_minutes: float = Field(default=60.0, ge=0, le=7 * 24 * 60)
    data_dir: Path = Path("instance")
    database_url: str | None = Field(default=None, repr=False)
    audit_dir: Path | None = None
    audit_key: str | None = Field(default=None, repr=False)
    keep_images: bool = True
    watch_reference: Path | None = None
    retention_days: float = Field(default=1.0, ge=0.0001, le=3650)
    feedback_days: float = Field(default=30.0, ge=0.0001, le=3650)
    login: bool = False
    shared_reading: bool = False
    secret_key: str | None = Field(default=None, repr=False)
    session_hours: float = Field(default=12.0, ge=0.01, le=24 * 30)
    hostnames: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: int = Field(default=0, ge=0, le=10)
    uploads_per_minute: int = Field(default=600, ge=0, le=1_000_000)
    logins_per_minute: int = Field(default=10, ge=0, le=1_000_000)
    max_upload_mb: float = Field(default=16.0, ge=0.01, le=1024)
    max_megapixels: float = Field(default=64.0, ge=0.01, le=178)  # Pillow refuses more
    queue_size: int = Field(default=64, ge=1, le=1000)
    max_batch: int = Field(default=4, ge=1, le=64)
    max_wait_ms: float = Field(default=10.0, ge=0, le=1000)
    timeout_s: float = Field(default=300.0, ge=1, le=3600)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            # Without the cause, which pydantic prints over many lines.
            raise SettingsError(_message(error.errors()[0])) from None

    @classmethod
    def from_environ(cls, **overrides: object) -> Settings:
        """Read the settings from the environment; `overrides` that are not None win. Raises SettingsError."""
        return cls(**{name: value for name, value in overrides.items() if value is not None})

    @field_validator("hostnames", mode="before")
    @classmethod
    def _split_names(cls, names: object) -> object:
        return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names

    @field_validator("detector")
    @classmethod
    def _names_a_detector(cls, detector: str) -> str:
        if not detector:
            raise SettingsError(f"{PREFIX}DETECTOR: expected shipped or scheme:path, got nothing")
        return detector

    @field_validator("secret_key")
    @classmethod
    def _is_long_enough(cls, secret: str | None) -> str | None:
        if secret is not None and len(secret) < MIN_SECRET_LENGTH:
            raise SettingsError(
                f"{PREFIX}SECRET_KEY: expected at least {MIN_SECRET_LENGTH} characters, got {len(secret)};"
                ' `python -c "import secrets; print(secrets.token_hex(32))"` makes one'
            )
        return secret

    @field_validator("audit_key")
    @classmethod
    def _are_long_enough(cls, keys: str | None) -> str | None:
        shortest = min((len(key.strip()) for key in (keys or "").split(",")), default=0)
        if keys is not None and shortest < MIN_SECRET_LENGTH:
            raise SettingsError(
                f"{PREFIX}AUDIT_KEY: expected keys of at least {MIN_SECRET_LENGTH} characters, the newest first,"
                f" separated by commas, got one of {shortest}"
            )
        return keys

    @model_validator(mode="after")
    def _is_consistent(self) -> Settings:
        if self.score is not None and self.possible_score is not None and self.possible_score > self.score:
            raise SettingsError(
                f"{PREFIX}POSSIBLE_SCORE: expected at most {PREFIX}SCORE ({self.score:g}), got {self.possible_score:g}"
            )
        if self.login and self.secret_key is None:
            raise SettingsError(f"{PREFIX}LOGIN is on: expected {PREFIX}SECRET_KEY beside it, which has no default")
        return self

    @property
    def kept_for(self) -> str:
        """How long results are kept, as text."""
        return f"{self.retention_days:g} day{'' if self.retention_days == 1 else 's'}"

    @property
    def max_upload_bytes(self) -> int:
        """The largest file that is accepted."""
        return int(self.max_upload_mb * 1024 * 1024)

    @property
    def max_pixels(self) -> int:
        """The most pixels that are decoded."""
        return int(self.max_megapixels * 1_000_000)


def _message(error: ErrorDetails) -> str:
    """Return pydantic's error as one sentence with the variable, what is expected and, unless secret, the value."""
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, SettingsError):
        return str(raised)
    name, value = str(error["loc"][0]), error["input"]
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name}: there is no such setting"
    if error["type"] in OUT_OF_RANGE:
        low = next(bound.ge for bound in field.metadata if isinstance(bound, Ge))
        high = next(bound.le for bound in field.metadata if isinstance(bound, Le))
        return f"{PREFIX}{name.upper()}: expected {low:g} to {high:g}, got {value}"
    expected = EXPECTED.get(error["type"]) or error.get("ctx", {}).get("expected") or error["msg"]
    got = f", got {value!r}" if field.repr else ""
    return f"{PREFIX}{name.upper()}: expected {expected}{got}"

"""What goes wrong with a registry."""

from __future__ import annotations


class RegistryError(ValueError):
    """A registry, a version or a change is refused; the message names file or version, and why."""

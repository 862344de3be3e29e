"""The upload page and its API."""

from .app import FractureApp, create_app, open_service, open_store

__all__ = ["FractureApp", "create_app", "open_service", "open_store"]

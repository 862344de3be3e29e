"""The upload page and its API."""

from .app import FractureApp, create_app, open_store
from .served import open_service

__all__ = ["FractureApp", "create_app", "open_service", "open_store"]

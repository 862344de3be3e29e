"""Detectors as signed, immutable versions: which one is served, which one runs in its shadow, and why."""

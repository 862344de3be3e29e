"""Metrics and reports from a Dataset and detections; never a model."""

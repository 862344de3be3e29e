"""Metrics and reports from a Dataset and detections, and how readers agree; never a model."""

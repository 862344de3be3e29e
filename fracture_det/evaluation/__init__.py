"""Metrics and reports from a Dataset and detections; never a model."""

from fracture_det.evaluation.judge import EvaluationError, evaluate
from fracture_det.evaluation.report import Estimate, Report, ReportError

__all__ = ["Estimate", "EvaluationError", "Report", "ReportError", "evaluate"]

"""Metrics and reports from a Dataset and detections; never a model."""

from fracture_det.evaluation.evaluator import EvaluationError, evaluate, evaluate_predictions
from fracture_det.evaluation.provenance import provenance
from fracture_det.evaluation.report import Estimate, Report, ReportError

__all__ = ["Estimate", "EvaluationError", "Report", "ReportError", "evaluate", "evaluate_predictions", "provenance"]

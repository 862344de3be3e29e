"""Baselines for comparison: the paper's, torchvision's, Detectron2's own predictor; and how fast each is."""

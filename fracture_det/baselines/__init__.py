"""The paper's baselines, Detectron2's own predictor, and how fast each is."""

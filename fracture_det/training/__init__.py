"""Training on Detectron2: data sets, mapper, augmentation, samplers, trainer, hooks."""

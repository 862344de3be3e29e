"""The model: configuration, backbones, checkpoints."""

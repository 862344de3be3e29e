"""The core types: radiographs, boxes with scores, the letterbox and the eight orientations."""

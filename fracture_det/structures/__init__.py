"""What every room speaks of: radiographs, boxes with scores, the letterbox and the eight orientations."""

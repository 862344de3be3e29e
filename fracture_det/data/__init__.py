"""Data sets of radiographs: records, file formats, checks, splits and anchors."""

"""What each annotation tool writes, read into RawAnnotation."""

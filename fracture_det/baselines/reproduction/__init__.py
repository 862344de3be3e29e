"""The paper's comparison made again: trains its detectors, judges them alike, and writes reproduction.html."""

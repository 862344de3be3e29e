"""The paper's comparison made again: trains its detectors, evaluates them alike, and writes reproduction.html."""

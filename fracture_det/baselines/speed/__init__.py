"""How fast detectors are on this machine, side by side; one process at a time."""

"""From a training folder to files that others can run; each export runs what it wrote and compares."""

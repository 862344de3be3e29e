"""From raw scores to probabilities and frozen operating points."""

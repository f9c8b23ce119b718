"""Scores: splits, fits of each fold, numbers with intervals, and the folder of a run."""

"""Metrics of other tools, computed from the same activations."""

"""Readouts: how NRP-L1 sees the activations of a layer."""

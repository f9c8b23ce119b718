"""Converters of JAX: Flax modules, nnx and linen."""

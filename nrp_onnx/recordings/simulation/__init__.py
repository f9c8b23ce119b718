"""Simulated recordings whose truth is known: images, sites, responses."""

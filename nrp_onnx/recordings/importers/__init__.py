"""Importers: one module a file format of recordings."""

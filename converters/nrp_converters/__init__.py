"""Converters: from a framework's model to an ONNX backbone with its layers exposed.

A converter is one module a framework. It runs the model once to see which layers it has, exports it
with every layer as a named output, and writes the layer table, the preprocessing and the model's
origin into the metadata, where the rest of the toolkit reads them. Converters are found through the
entry-point group ``nrp_onnx.converters``. Importing this package imports no framework.
"""

"""Converters: from a framework's model to an ONNX backbone with its layers exposed.

One module a framework, found through the entry-point group ``nrp_onnx.converters``. Importing this
package imports no framework.
"""

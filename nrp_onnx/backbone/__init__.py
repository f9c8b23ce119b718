"""The ONNX backbone: its layers, its preprocessing, and the feature graph cut from it."""

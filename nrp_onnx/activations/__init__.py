"""Activations of stimuli: extracted with ONNX Runtime into Parquet, one file a layer."""

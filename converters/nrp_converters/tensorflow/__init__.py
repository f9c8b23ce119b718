"""Converters of TensorFlow: Keras, SavedModel, TFLite."""

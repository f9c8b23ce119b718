"""What a score leaves to be used elsewhere: head, predictor and scorer as ONNX."""

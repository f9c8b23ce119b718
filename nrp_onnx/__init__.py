"""How brain-like is an image model? The NRP-error of ONNX backbones on neural recordings."""

"""Converters of PyTorch: modules, torchvision, timm, transformers."""

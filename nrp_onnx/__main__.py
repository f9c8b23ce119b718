"""``python -m nrp_onnx``."""

from nrp_onnx.cli.app import main

if __name__ == "__main__":
    main()

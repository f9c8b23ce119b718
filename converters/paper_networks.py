"""The eight networks of Anand, Sen & Roy (2021), with what the paper says of them."""

from dataclasses import dataclass

_APACHE, _MIT, _BSD = "Apache-2.0", "MIT", "BSD-3-Clause"


@dataclass(frozen=True)
class PaperNetwork:
    """One network of the paper.

    Attributes:
        name: the paper's; the file that is made is ``NAME.onnx``.
        spec: what ``nrp-onnx convert`` takes.
        n_parameters: with everything that training changes or tracks, as Keras counts them.
        n_parameters_in_paper: the number printed there, where it is another.
        top5, top1: the paper's shares of ImageNet's validation images.
        nrp_error: the paper's, mean over V4 and IT.
        input_size: (height, width) in pixels.
        preprocessing: the preset.
        licence: of the weights, as their publishers state it.
    """

    name: str
    spec: str
    n_parameters: int
    top5: float
    top1: float
    nrp_error: float
    input_size: tuple[int, int]
    preprocessing: str
    licence: str
    n_parameters_in_paper: int | None = None


#: In the order of the paper's table.
PAPER_NETWORKS: tuple[PaperNetwork, ...] = (
    PaperNetwork(
        "MobileNet", "keras:MobileNet", 4_253_864, 0.895, 0.704, 0.237, (224, 224), "tf", _APACHE
    ),
    PaperNetwork(
        "MobileNetV2",
        "keras:MobileNetV2",
        3_538_984,
        0.901,
        0.713,
        0.249,
        (224, 224),
        "tf",
        _APACHE,
        n_parameters_in_paper=3_638_984,  # a slip of one digit
    ),
    PaperNetwork(
        "NASNetMobile",
        "keras:NASNetMobile",
        5_326_716,
        0.919,
        0.744,
        0.247,
        (224, 224),
        "tf",
        _APACHE,
    ),
    PaperNetwork(
        "ResNet50", "keras:ResNet50", 25_636_712, 0.921, 0.749, 0.290, (224, 224), "caffe", _MIT
    ),
    PaperNetwork(
        "Xception", "keras:Xception", 22_910_480, 0.945, 0.790, 0.257, (299, 299), "tf", _MIT
    ),
    PaperNetwork(
        "DenseNet121",
        "keras:DenseNet121",
        8_062_504,
        0.923,
        0.750,
        0.249,
        (224, 224),
        "imagenet",
        _BSD,
    ),
    PaperNetwork(
        "DenseNet169",
        "keras:DenseNet169",
        14_307_880,
        0.932,
        0.762,
        0.249,
        (224, 224),
        "imagenet",
        _BSD,
    ),
    PaperNetwork(
        "AlexNet",
        "zoo:AlexNet",
        60_965_224,
        0.803,
        0.570,
        0.226,
        (227, 227),
        "caffe",
        "unrestricted (Caffe), BSD (ONNX model zoo)",
        n_parameters_in_paper=60_954_656,  # without its 10,568 biases
    ),
)

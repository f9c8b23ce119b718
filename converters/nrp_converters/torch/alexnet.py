"""AlexNet as of 2012: two groups of filters in conv2, conv4 and conv5, as Caffe's bvlc_alexnet has it.

Layer names, order (norm before pool), sizes and initial values are those of Caffe's model.
"""

from collections import OrderedDict

from torch import Tensor, nn

#: Caffe's fillers: for each layer with weights, the deviation of its weights and its biases' value.
_FILLERS = {
    "conv1": (0.01, 0.0),
    "conv2": (0.01, 0.1),
    "conv3": (0.01, 0.0),
    "conv4": (0.01, 0.1),
    "conv5": (0.01, 0.1),
    "fc6": (0.005, 0.1),
    "fc7": (0.005, 0.1),
    "fc8": (0.01, 0.0),
}


class AlexNet(nn.Module):
    """Images of shape (batch, 3, 227, 227), BGR, mean subtracted, to probabilities (batch, 1000).

    At 227 x 227 every pooling window falls within its map, so that it does not matter that Caffe
    rounds sizes up and others down. At 224 x 224 it is the graph of the ONNX model zoo, which
    rounds down at pool1 and pool2 and up at pool5.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, 96, 11, stride=4),
            relu1=nn.ReLU(),
            norm1=nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
            pool1=nn.MaxPool2d(3, stride=2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
            relu2=nn.ReLU(),
            norm2=nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
            pool2=nn.MaxPool2d(3, stride=2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            fc6=nn.Linear(256 * 6 * 6, 4096),
            relu6=nn.ReLU(),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(4096, 1000),
            prob=nn.Softmax(dim=1),
        )
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.initialise()

    def initialise(self) -> None:
        """Caffe's random weights: Gaussian, with constant biases."""
        for name, (deviation, bias) in _FILLERS.items():
            nn.init.normal_(self.get_parameter(f"{name}.weight"), std=deviation)
            nn.init.constant_(self.get_parameter(f"{name}.bias"), bias)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "fc6" else x)
        return x

"""Small PyTorch models with what makes a conversion hard: in-place steps, reuse, tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualNet(nn.Module):
    """Convolutions and batch norms, one in-place ReLU called three times, an in-place sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.stage(x)
        y += x
        y = self.relu(y - 0.3)
        return self.fc(self.relu(torch.flatten(self.pool(y), 1)))

    def layers_without_in_place_steps(self, x: Tensor) -> dict[str, Tensor]:
        """Every layer by its own formula, in the order of computation."""
        found = {"conv1": F.conv2d(x, self.conv1.weight, self.conv1.bias, padding=1)}
        found["bn1"] = _batch_norm(found["conv1"], self, "bn1")
        found["relu#1"] = found["bn1"].clamp(min=0)
        found["stage.0.0"] = F.conv2d(
            found["relu#1"], self.get_parameter("stage.0.0.weight"), padding=1
        )
        found["stage.0.1"] = _batch_norm(found["stage.0.0"], self, "stage.0.1")
        found["stage.0"] = found["stage.0.1"]
        found["stage.1"] = found["stage.0.1"].clamp(min=0)
        found["stage.2"] = found["stage.1"]
        found["stage"] = found["stage.1"]
        found["relu#2"] = (found["stage"] + found["relu#1"] - 0.3).clamp(min=0)
        found["pool"] = found["relu#2"].mean((2, 3), keepdim=True)
        found["relu#3"] = found["pool"].flatten(1)
        found["fc"] = found["relu#3"] @ self.fc.weight.T + self.fc.bias
        return found


class TokenNet(nn.Module):
    """Patches as tokens, a class token, attention, a perceptron, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 12))
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], 1)
        y = self.norm(tokens)
        tokens = tokens + self.attention(y, y, y, need_weights=False)[0]
        tokens = tokens + self.mlp(tokens)
        return {"logits": self.head(tokens[:, 0]), "mean": tokens.mean(), "tokens": tokens}


class Awkward(nn.Module):
    """Names that clash with those of the graph, and outputs that are no layers."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Identity()
        self.output = nn.Conv2d(3, 4, 3)
        self.relu = nn.Softplus()
        self.windows = nn.Flatten(0, 2)
        self.sizes = Shapes()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor):
        self.calls += 1
        y = F.relu(self.output(self.input(x)))
        self.sizes(self.windows(y))
        return self.relu(y)


class Shapes(nn.Module):
    """Returns no tensor."""

    def forward(self, x: Tensor) -> int:
        return x.ndim


class BrightnessGate(nn.Module):
    """Branches on the values of its input."""

    def forward(self, x: Tensor):
        return x * 2 if x.mean() > 0 else x


class Branching(nn.Module):
    """Branches on what is fixed when the model is traced: its mode, a setting, the image's shape."""

    def __init__(self, bright: bool) -> None:
        super().__init__()
        self.bright = bright
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.other = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor):
        if self.training:
            x = x + torch.randn_like(x)
        y = self.one(x) if self.bright else self.other(x)
        if x.shape[-1] > 8:
            y = F.max_pool2d(y, 2)
        return self.relu(y)


class ChannelsLast(nn.Module):
    """Convolution, then a block that has the channels last, as in ConvNeXt and some Swins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.permute = Permute()
        self.block = ChannelsLastBlock(8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor):
        return self.norm(self.block(self.permute(self.conv(x)))).mean((1, 2))


class Permute(nn.Module):
    """Puts the channels last."""

    def forward(self, x: Tensor):
        return x.permute(0, 2, 3, 1)


class ChannelsLastBlock(nn.Module):
    """A perceptron for each pixel, which also returns its gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.5)
        self.down = nn.Linear(2 * width, width)
        self.gated = Gated(width)

    def forward(self, x: Tensor):
        y = self.down(self.drop(self.act(self.up(self.norm(x)))))
        return x + self.gated(y)[0]


class Gated(nn.Module):
    """Returns its result and, beside it, the gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, x: Tensor):
        gate = torch.sigmoid(self.gate(x))
        return x * gate, gate


class TwoInputs(nn.Module):
    """Compares two images."""

    def forward(self, x: Tensor, y: Tensor):
        return x - y


class WordsIn(nn.Module):
    """Takes the numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)

    def forward(self, x: Tensor):
        return self.words(x)


class PairsOnly(nn.Module):
    """Takes two images for the only number that there is."""

    def forward(self, x: Tensor):
        return x * 2 if x.shape[0] == 2 else x


class Eigenvalues(nn.Module):
    """Uses an operation that ONNX does not have."""

    def forward(self, x: Tensor):
        return torch.linalg.eigvalsh(x @ x.mT)


class OneImageOnly(nn.Module):
    """Merges the batch axis away."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 64, 2)

    def forward(self, x: Tensor):
        return self.fc(x.reshape(1, -1))


def randomise_batch_norms(module: nn.Module) -> None:
    """Statistics other than 0 and 1, so that a batch norm that is left out or doubled shows."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)


def _batch_norm(x: Tensor, module: nn.Module, path: str) -> Tensor:
    mean, variance, weight, bias = (
        tensor[:, None, None]
        for tensor in (
            module.get_buffer(f"{path}.running_mean"),
            module.get_buffer(f"{path}.running_var"),
            module.get_parameter(f"{path}.weight"),
            module.get_parameter(f"{path}.bias"),
        )
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

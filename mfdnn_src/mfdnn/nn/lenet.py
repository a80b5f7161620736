"""LeNet-5, as one builds it today and closer to how it was in 1998."""

import torch
from torch import Tensor, nn

#: Which of the six maps of S2 each of the sixteen maps of C3 sees: three or four
#: neighbours in a circle, two pairs, or all (Table I of the 1998 paper).
C3_INPUTS = (
    *([(i + j) % 6 for j in range(3)] for i in range(6)),
    *([(i + j) % 6 for j in range(4)] for i in range(6)),
    *([(i + j) % 6 for j in (0, 1, 3, 4)] for i in range(3)),
    list(range(6)),
)


class LeNet(nn.Module):
    """Modern LeNet: ReLU, max pooling, every map of C3 sees all of S2.

    Maps images of shape (N, 1, 28, 28) to logits of shape (N, 10), with 61,706
    parameters; with three channels, images of shape (N, 3, 32, 32), which are not
    padded, with 62,006 parameters.

    Args:
        channels: 1 for grey images, 3 for colour images.

    Source: lecture topics 3.12 and 3.15; LeCun, Bottou, Bengio and Haffner,
    "Gradient-based learning applied to document recognition" (1998).
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        padding = 2 if channels == 1 else 0
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding),  # C1: (N, 6, 28, 28)
            nn.ReLU(),
            nn.MaxPool2d(2),  # S2: (N, 6, 14, 14)
            nn.Conv2d(6, 16, 5),  # C3: (N, 16, 10, 10)
            nn.ReLU(),
            nn.MaxPool2d(2),  # S4: (N, 16, 5, 5)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),  # C5
            nn.ReLU(),
            nn.Linear(120, 84),  # F6
            nn.ReLU(),
            nn.Linear(84, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images (N, 1, 28, 28) or colour ones."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class ClassicalLeNet(nn.Module):
    """LeNet with tanh and average pooling, and tanh after pooling as well.

    Maps images of shape (N, 1, 28, 28) to logits of shape (N, 10). 61,706
    parameters. Unlike in 1998 the pooling has no trainable scale and bias, tanh is
    not scaled, and the outputs are logits, not distances to prototypes.

    Source: lecture topic 3.12; LeCun, Bottou, Bengio and Haffner (1998).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),  # C1: (N, 6, 28, 28)
            nn.Tanh(),
            nn.AvgPool2d(2),  # S2: (N, 6, 14, 14)
            nn.Tanh(),
            self._c3(),  # C3: (N, 16, 10, 10)
            nn.Tanh(),
            nn.AvgPool2d(2),  # S4: (N, 16, 5, 5)
            nn.Tanh(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),  # C5
            nn.Tanh(),
            nn.Linear(120, 84),  # F6
            nn.Tanh(),
            nn.Linear(84, 10),
        )

    def _c3(self) -> nn.Module:
        return nn.Conv2d(6, 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images of shape (N, 1, 28, 28)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class SparseLeNet(ClassicalLeNet):
    """Classical LeNet with the connections from S2 to C3 of 1998.

    Maps images of shape (N, 1, 28, 28) to logits of shape (N, 10). 60,806
    parameters.

    Source: LeCun, Bottou, Bengio and Haffner (1998), Table I.
    """

    def _c3(self) -> nn.Module:
        return SparseC3()


class SparseC3(nn.Module):
    """The layer C3 of 1998: each output map sees only some of the input maps.

    Maps shape (N, 6, H, W) to shape (N, 16, H - 4, W - 4). 1,516 parameters.
    The maps that see equally many inputs are one grouped convolution over copies
    of these inputs, so that no weight exists without its connection.

    Source: LeCun, Bottou, Bengio and Haffner (1998), Table I.
    """

    of_three: Tensor
    of_four: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.three = nn.Conv2d(6 * 3, 6, 5, groups=6)
        self.four = nn.Conv2d(9 * 4, 9, 5, groups=9)
        self.six = nn.Conv2d(6, 1, 5)
        of_three = torch.tensor(C3_INPUTS[:6]).flatten()
        of_four = torch.tensor(C3_INPUTS[6:15]).flatten()
        self.register_buffer("of_three", of_three, persistent=False)
        self.register_buffer("of_four", of_four, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of C3, shape (N, 16, H - 4, W - 4)."""
        three = self.three(x[:, self.of_three])  # (N, 6, H - 4, W - 4)
        four = self.four(x[:, self.of_four])  # (N, 9, H - 4, W - 4)
        return torch.cat([three, four, self.six(x)], dim=1)

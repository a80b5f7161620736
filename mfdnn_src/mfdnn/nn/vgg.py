"""VGG networks: stages of 3x3 convolutions, each followed by a pooling."""

from collections.abc import Sequence

from torch import Tensor, nn

#: Convolutions in each stage, by the number of layers with weights.
STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


def stages(counts: Sequence[int], channels: int = 3) -> nn.Sequential:
    """Build the convolutional part of a VGG network.

    The filters are drawn by He's rule, their biases are zero: with torch's own
    random weights the deeper networks do not leave the loss of guessing.

    Args:
        counts: numbers of 3x3 convolutions of the stages, at most five.
        channels: of the images.

    Returns:
        a network that maps shape (N, channels, H, W) to the last width and the
        sides divided by two, rounded down, once a stage.
    """
    layers: list[nn.Module] = []
    for count, width in zip(counts, WIDTHS, strict=False):
        for _ in range(count):
            conv = nn.Conv2d(channels, width, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def classifier(n: int, classes: int) -> nn.Sequential:
    """Three linear layers with dropout: shape (N, n) to logits (N, classes)."""
    return nn.Sequential(
        nn.Linear(n, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, classes),
    )


class VGG(nn.Module):
    """VGG11, 13, 16 or 19 for ImageNet.

    Maps images of shape (N, 3, 224, 224) to logits of shape (N, 1000); larger
    images and smaller ones, from 32 pixels a side, are pooled to the same 7x7 maps.
    132,863,336, 133,047,848, 138,357,544 and 143,667,240 parameters.

    Args:
        layers: the number of layers with weights, a key of STAGES.

    Source: lecture topic 3.64; Simonyan and Zisserman, "Very deep convolutional
    networks for large-scale image recognition" (2015), columns A, B, D and E.
    """

    def __init__(self, layers: int = 16) -> None:
        super().__init__()
        self.features = stages(STAGES[layers])
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.flatten = nn.Flatten()
        self.classifier = classifier(512 * 7 * 7, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 1000), of images of shape (N, 3, 224, 224)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.features(x))))
        return logits


class VGGCIFAR10(nn.Module):
    """VGG16 without its last stage, for images of 32x32 pixels: 13 layers.

    Maps images of shape (N, 3, 32, 32) to logits of shape (N, 10). 32,850,250
    parameters, of which the convolutions hold 7,635,264.

    Source: lecture topics 3.65 and 3.66.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = stages(STAGES[16][:4])  # (N, 512, 2, 2)
        self.flatten = nn.Flatten()  # (N, 2048)
        self.classifier = classifier(2048, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images of shape (N, 3, 32, 32)."""
        logits: Tensor = self.classifier(self.flatten(self.features(x)))
        return logits

"""AlexNet in the size of CIFAR-10."""

from torch import Tensor, nn


class AlexNetCIFAR10(nn.Module):
    """AlexNet for images of 32x32 pixels: not split in two, no normalization.

    Maps images of shape (N, 3, 32, 32) to logits of shape (N, 10). 58,375,114
    parameters, of which the convolutions hold 3,800,000. The pools overlap: windows
    of 3 pixels, 2 apart. For the network of 2012 see `torchvision.models.alexnet`.

    Source: lecture topic 3.40, after Krizhevsky, Sutskever and Hinton, "ImageNet
    classification with deep convolutional neural networks" (2012).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 4),  # (N, 96, 29, 29)
            nn.ReLU(),
            nn.Conv2d(96, 96, 3),  # (N, 96, 27, 27)
            nn.ReLU(),
            nn.Conv2d(96, 256, 5, padding=2),  # (N, 256, 27, 27)
            nn.ReLU(),
            nn.MaxPool2d(3, 2),  # (N, 256, 13, 13)
            nn.Conv2d(256, 384, 3, padding=1),  # (N, 384, 13, 13)
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),  # (N, 256, 13, 13)
            nn.ReLU(),
            nn.MaxPool2d(3, 2),  # (N, 256, 6, 6)
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Flatten(),  # (N, 9216)
            nn.Linear(9216, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images of shape (N, 3, 32, 32)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

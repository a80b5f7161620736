"""Networks of the lecture for CIFAR-10, from its layer tables."""

from torch import nn


def alexnet_cifar10():
    """Layer table of the lecture's AlexNet for CIFAR-10."""
    layers, n_in = [], 3
    table = [(96, 4, 0), (96, 3, 0), (256, 5, 2), (384, 3, 1), (384, 3, 1), (256, 3, 1)]
    for n, (n_out, kernel, padding) in enumerate(table):
        layers += [nn.Conv2d(n_in, n_out, kernel, padding=padding), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] * (n in (2, 5))
        n_in = n_out
    layers += [nn.Dropout(), nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU()]
    layers += [nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)]
    return nn.Sequential(*layers)


def vgg_cifar10():
    """Layer table of the lecture's VGG for CIFAR-10."""
    layers, n_in = [], 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512)):
        for n_out in stage:
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            n_in = n_out
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(2048, 4096), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 10)]
    return nn.Sequential(*layers)

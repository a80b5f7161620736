"""The networks of the book, one module an architecture."""

from mfdnn.nn.alexnet import AlexNetCIFAR10
from mfdnn.nn.autoencoder import Autoencoder
from mfdnn.nn.fast import FastCIFAR10
from mfdnn.nn.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
)
from mfdnn.nn.googlenet import GoogLeNet, GoogLeNetCIFAR10, Inception
from mfdnn.nn.lenet import ClassicalLeNet, LeNet, SparseLeNet
from mfdnn.nn.mlp import mlp
from mfdnn.nn.nice import nice
from mfdnn.nn.nin import NiNCIFAR10
from mfdnn.nn.realnvp import RealNVP
from mfdnn.nn.resnet import BasicBlock, Bottleneck, ResNet, resnet
from mfdnn.nn.resnext import ResNeXtBlock, resnext
from mfdnn.nn.restoration import SRCNN, VDSR, DnCNN
from mfdnn.nn.senet import SEBasicBlock, SEBottleneck, SqueezeExcitation, se_resnet
from mfdnn.nn.unet import UNet
from mfdnn.nn.vae import VAE, VQVAE, Sampled, VectorQuantized
from mfdnn.nn.vgg import VGG, VGGCIFAR10

__all__ = [
    "SRCNN",
    "VAE",
    "VDSR",
    "VGG",
    "VGGCIFAR10",
    "VQVAE",
    "AlexNetCIFAR10",
    "Autoencoder",
    "BasicBlock",
    "Bottleneck",
    "ClassicalLeNet",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DnCNN",
    "FastCIFAR10",
    "GoogLeNet",
    "GoogLeNetCIFAR10",
    "Inception",
    "LeNet",
    "MLPDiscriminator",
    "MLPGenerator",
    "NiNCIFAR10",
    "RealNVP",
    "ResNeXtBlock",
    "ResNet",
    "SEBasicBlock",
    "SEBottleneck",
    "Sampled",
    "SparseLeNet",
    "SqueezeExcitation",
    "UNet",
    "VectorQuantized",
    "mlp",
    "nice",
    "resnet",
    "resnext",
    "se_resnet",
]

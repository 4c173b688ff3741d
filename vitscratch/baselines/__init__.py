"""What a ViT must beat: models of single pixels, and convolutional networks. They know nothing of our model."""

from vitscratch.baselines.pixels import LeftOut, PixelModel, Trial, fit_pca_logistic, fit_rbf_svm
from vitscratch.baselines.resnet import ResNet, resnet

__all__ = ["LeftOut", "PixelModel", "ResNet", "Trial", "fit_pca_logistic", "fit_rbf_svm", "resnet"]

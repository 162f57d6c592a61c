"""A control: images whose labels say nothing about them."""

from dataclasses import replace

import torch

from cdarts.data.images import ImageData
from cdarts.randomness import generator


def with_shuffled_labels(data: ImageData, seed: int) -> ImageData:
    """The same data, the training labels permuted among the images; classes keep their sizes, test labels stay true."""
    order = torch.randperm(len(data.train), generator=generator(seed, "shuffled labels")).numpy()
    return replace(data, train=data.train.relabelled(data.train.labels[order]))

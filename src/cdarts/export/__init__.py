"""A trained network in forms that run without this package: ONNX, `torch.export`, and one file of plain torch code.

All three take images as float32 (N, C, H, W) in 0 to 1, at the side that the network was trained at, and give class
logits (N, K); normalising is part of them, auxiliary head and drop-path are not. A file appears under its name only
after it has been read back and compared with the network that it was made from.
"""

from cdarts.export.classifier import Classifier, ImageRule, Model, Resize, as_images
from cdarts.export.comparison import BATCHES, TOLERANCE, compare
from cdarts.export.formats import FORMATS, Exported, Format, check_out, default_out, export
from cdarts.export.module import ModuleSource
from cdarts.export.onnx_file import OnnxModel

__all__ = [
    "BATCHES",
    "FORMATS",
    "TOLERANCE",
    "Classifier",
    "Exported",
    "Format",
    "ImageRule",
    "Model",
    "ModuleSource",
    "OnnxModel",
    "Resize",
    "as_images",
    "check_out",
    "compare",
    "default_out",
    "export",
]

"""The fixed parts of the text of a stand-alone module: its head, the layers, the frames of cells and network."""

HEAD = '''
"""A network that tells {num_classes} classes of images apart, written by cdarts {version}. It needs torch alone.

    from {name} import CLASS_NAMES, load

    network = load()  # the weights lie beside this file, in {name}.safetensors
    classes = network(images).argmax(dim=1)  # images: float32 (N, {channels}, {side}, {side}), 0 to 1

A picture of another size is brought to this one so: the shorter side to {side} pixels (bilinear, antialiased), then the
central square is cut out.

{genotype}
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASS_NAMES = {class_names}
SIDE = {side}
CHANNELS = {channels}
MEAN = {mean}
STD = {std}
WEIGHTS = Path(__file__).with_suffix(".safetensors")
'''

LAYERS: dict[str, str] = {
    "FactorizedReduce": '''
class FactorizedReduce(nn.Module):
    """Halves the side: ReLU, two 1x1 convolutions of stride 2, one of them a pixel further on, BatchNorm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(F.relu(x), (0, width % 2, 0, height % 2))  # to even sides
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
''',
    "ReluConvBatchNorm": '''
class ReluConvBatchNorm(nn.Module):
    """ReLU, convolution, BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))
''',
    "DepthwisePointwise": '''
class DepthwisePointwise(nn.Module):
    """ReLU, a convolution of each channel by itself, a 1x1 convolution across channels, BatchNorm."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))
''',
    "SeparableConv": '''
class SeparableConv(nn.Module):
    """Two depthwise-pointwise convolutions; the first carries the stride."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.first = DepthwisePointwise(channels, kernel, stride)
        self.second = DepthwisePointwise(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))
''',
    "NormedPool": '''
class NormedPool(nn.Module):
    """A pool, then BatchNorm without weights."""

    def __init__(self, pool: nn.Module, channels: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pool(x))
''',
    "ResidualReduction": '''
class ResidualReduction(nn.Module):
    """Halves the side: two 3x3 convolutions, beside a shortcut that is averaged and projected."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = ReluConvBatchNorm(c_in, c_out, kernel=3, stride=2)
        self.second = ReluConvBatchNorm(c_out, c_out, kernel=3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))
''',
}
"""The layers that networks may need, in the order in which they build on one another."""

CELL = '''
class {name}(nn.Module):
    """{does}: from {inputs}, what it is given, to {gives}."""

    def __init__(self, {arguments}) -> None:
{layers}

    def forward(self, {states}) -> Tensor:
{forward}
'''

NETWORK = '''
class Network(nn.Module):
    """Normalising, a stem, {count} cells, the mean over the image, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, -1, 1, 1), persistent=False)
{layers}

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (CHANNELS, SIDE, SIDE):
            raise ValueError(f"images of shape {{tuple(images.shape)}}, expected (N, {{CHANNELS}}, {{SIDE}}, {{SIDE}})")
{forward}
'''

TAIL = '''
def load(weights: Path = WEIGHTS) -> Network:
    """The trained network, ready to use. Raises ValueError if the file does not hold its weights."""
    network = Network()
    try:
        network.load_state_dict(read_safetensors(weights))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{weights} does not hold the weights of this network") from error
    return network.eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file: the length of its header in 8 bytes, the header as JSON, then the numbers themselves."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            numbers = bytearray(data[start + first : start + end])
            tensors[name] = torch.frombuffer(numbers, dtype=types[entry["dtype"]]).reshape(entry["shape"])
    return tensors
'''

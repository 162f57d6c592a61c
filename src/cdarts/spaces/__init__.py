"""The search spaces by name. A new one is one file and one line here."""

from cdarts.spaces.base import Space
from cdarts.spaces.darts import DartsSpace
from cdarts.spaces.nasbench201 import NasBench201Space
from cdarts.spaces.toy import ToySpace

SPACES: dict[str, type[Space]] = {"darts": DartsSpace, "nasbench201": NasBench201Space, "toy": ToySpace}

AnySpace = DartsSpace | NasBench201Space | ToySpace
"""What a configuration may hold; read back from files by its `name`."""

__all__ = ["SPACES", "AnySpace", "DartsSpace", "NasBench201Space", "Space", "ToySpace"]

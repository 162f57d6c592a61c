"""The search algorithms by name: each is a settings class that builds its search.

A new one is one file and one line here.
"""

from typing import get_args

from cdarts.algorithms.beta_darts import BetaDartsConfig
from cdarts.algorithms.config import Protocol, SearchConfig
from cdarts.algorithms.cyclic_config import CyclicConfig
from cdarts.algorithms.darts import DartsConfig
from cdarts.algorithms.darts_minus import DartsMinusConfig
from cdarts.algorithms.drnas import DrnasConfig
from cdarts.algorithms.enas import EnasConfig
from cdarts.algorithms.fair_darts import FairDartsConfig
from cdarts.algorithms.gdas import GdasConfig
from cdarts.algorithms.p_darts import PDartsConfig
from cdarts.algorithms.pc_darts import PcDartsConfig
from cdarts.algorithms.random_search import RandomConfig
from cdarts.algorithms.rsps import RspsConfig
from cdarts.algorithms.setn import SetnConfig
from cdarts.algorithms.single_path import SinglePathConfig
from cdarts.algorithms.snas import SnasConfig

AnyAlgorithm = (
    CyclicConfig
    | DartsConfig
    | PDartsConfig
    | PcDartsConfig
    | GdasConfig
    | SnasConfig
    | DrnasConfig
    | BetaDartsConfig
    | FairDartsConfig
    | DartsMinusConfig
    | EnasConfig
    | RspsConfig
    | SetnConfig
    | SinglePathConfig
    | RandomConfig
)
"""What a search configuration may hold; read back from files by its `name`."""

ALGORITHMS: dict[str, type[SearchConfig]] = {kind.name: kind for kind in get_args(AnyAlgorithm)}

__all__ = ["ALGORITHMS", "AnyAlgorithm", "CyclicConfig", "Protocol", "SearchConfig"]

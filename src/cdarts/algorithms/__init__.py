"""The search algorithms by name: each is a settings class that builds its search.

A new one is one file and one line here.
"""

from cdarts.algorithms.cyclic_config import CyclicConfig

ALGORITHMS = {"cdarts": CyclicConfig}

AnyAlgorithm = CyclicConfig
"""What a search configuration may hold; read back from files by its `name`."""

__all__ = ["ALGORITHMS", "AnyAlgorithm", "CyclicConfig"]

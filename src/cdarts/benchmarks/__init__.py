"""Tabular benchmarks: what was measured for every architecture of a space, and searches on those measurements.

Nothing here needs torch. `cdarts.benchmarks.searches` and `cdarts.benchmarks.natsbench` are imported by name.
"""

from cdarts.benchmarks.nasbench201 import DATASETS, HardwareCosts, Result, Table, find_table, function_class

__all__ = ["DATASETS", "HardwareCosts", "Result", "Table", "find_table", "function_class"]

"""What a network costs: parameters, multiply-adds, memory, time; and the best genotype within limits of them."""

from cdarts.cost.counting import Cost, cost_by_part, network_cost
from cdarts.cost.selection import Bounds, Selection
from cdarts.cost.table import Amount, CostTable, Size, activation_bytes, cost_table

__all__ = [
    "Amount",
    "Bounds",
    "Cost",
    "CostTable",
    "Selection",
    "Size",
    "activation_bytes",
    "cost_by_part",
    "cost_table",
    "network_cost",
]

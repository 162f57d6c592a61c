"""The toy space: as small as a space can be and still have a reduction, a skip and a choice."""

import pytest

from cdarts.operations import FactorizedReduce, Identity
from cdarts.spaces import ToySpace


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_the_middle_cell_halves_the_side_and_doubles_the_channels(cells: int) -> None:
    slots = ToySpace().layout(cells, 4)
    assert [slot.stride for slot in slots] == [2 if index == cells // 2 else 1 for index in range(cells)]
    assert [slot.channels for slot in slots] == [8 if index >= cells // 2 else 4 for index in range(cells)]
    assert [slot.stage for slot in slots] == [int(index > cells // 2) for index in range(cells)]


def test_a_skip_in_the_middle_cell_is_a_factorized_reduction() -> None:
    assert isinstance(ToySpace().operation("skip_connect", 4, 1, False), Identity)
    assert isinstance(ToySpace().operation("skip_connect", 4, 2, False), FactorizedReduce)

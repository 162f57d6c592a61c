"""Protocols: what every method shares."""

import json

import pytest

from cdarts.algorithms import CyclicConfig, Protocol
from cdarts.data import DATASETS
from cdarts.presets import PRESETS
from cdarts.protocols import PROTOCOLS, SUMMARIES
from cdarts.settings import from_json, to_json


def test_every_protocol_has_one_line_of_summary() -> None:
    assert SUMMARIES.keys() == PROTOCOLS.keys()
    assert all(summary and "\n" not in summary for summary in SUMMARIES.values())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_sound(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.data in DATASETS
    assert 0 <= protocol.still_epochs < protocol.epochs
    protocol.weights.check()
    protocol.space.layout(protocol.cells, protocol.channels)
    assert from_json(Protocol, json.loads(json.dumps(to_json(protocol))), "file") == protocol


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.endswith("-nasbench201")])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_preset_takes_over_what_a_protocol_fixes(name: str, preset: str) -> None:
    protocol = PROTOCOLS[name]
    config = PRESETS[preset].under(protocol)
    assert (config.space, config.channels, config.batch_size) == (
        protocol.space,
        protocol.channels,
        protocol.batch_size,
    )
    assert config.name == PRESETS[preset].name
    assert PRESETS[preset].under(protocol) == config


def test_the_small_protocol_counts_the_epochs_of_the_search_network() -> None:
    protocol = PROTOCOLS["nasbench201-small"]
    config = PRESETS["cdarts-nasbench201"].under(protocol)
    assert isinstance(config, CyclicConfig)
    assert config.pretrain_epochs + config.cycles * config.joint_epochs == protocol.epochs
    assert config.search_cells == config.eval_cells == protocol.cells

"""The paper's ablations as data: lists of settings, each of which differs in one field from another one of its list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdarts.algorithms import AnyAlgorithm, CyclicConfig, Protocol
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS, preset_under
from cdarts.settings import differences


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of an ablation: what is searched with."""

    name: str
    group: str
    """Heading of the rows that belong together."""
    preset: str
    """Name, without its space, of the preset that it is or was varied from."""
    algorithm: AnyAlgorithm
    says: str
    """What it is, in a few words."""
    versus: str | None = None
    """Name of the row that it differs from in one field; None for a row that others are compared with."""
    position: float | None = None
    """Where it stands on the axis of the plot, for ablations over numbers."""


def difference(setting: Setting, settings: Sequence[Setting]) -> dict[str, tuple[Any, Any]]:
    """Field -> (its value, the value in the row that it is compared with); empty for a row without one."""
    named = {other.name: other for other in settings}
    if setting.versus is None:
        return {}
    return differences(setting.algorithm, named[setting.versus].algorithm)


def _cyclic(preset: str, protocol: Protocol) -> CyclicConfig:
    """Raises `ConfigurationError` for a preset that is no CDARTS."""
    if preset not in PRESETS:
        known = ", ".join(cyclic_presets())
        raise ConfigurationError(f"--preset {preset}: there is none of that name. There are {known}")
    algorithm = preset_under(preset, protocol)
    if not isinstance(algorithm, CyclicConfig):
        raise ConfigurationError(
            f"--preset {preset}: only searches with an evaluation network can be varied here: "
            f"{', '.join(cyclic_presets())}"
        )
    return algorithm


def cyclic_presets() -> list[str]:
    """Names, without their space, of the presets that are CDARTS in every space."""
    return [
        name
        for name, algorithm in PRESETS.items()
        if isinstance(algorithm, CyclicConfig) and f"{name}-nasbench201" in PRESETS
    ]


# -- components --------------------------------------------------------------------------------------------------------

CUMULATIVE = "One after another, up to the paper's preset"
LEFT_OUT = "The paper's preset with one thing left out or changed"
DEFAULT = "The default preset with one thing left out or changed"

FINAL = 2
"""The level of the final logits; 0 and 1 are those of the first and the second stage."""

PAPER_ROWS: tuple[tuple[str, str, Mapping[str, Any], str | None, str], ...] = (
    (
        "separate",
        CUMULATIVE,
        {
            "eval_training": False,
            "feedback_weight": 0.0,
            "feedback_levels": (FINAL,),
            "l1_weight": 0.0,
            "inherit_weights": False,
        },
        None,
        "S-Net alone, as DARTS searches",
    ),
    (
        "joint-training",
        CUMULATIVE,
        {"feedback_weight": 0.0, "feedback_levels": (FINAL,), "l1_weight": 0.0, "inherit_weights": False},
        "separate",
        "+ E-Net is trained on what S-Net proposes; it teaches nothing yet, so alpha cannot differ",
    ),
    (
        "feedback",
        CUMULATIVE,
        {"feedback_levels": (FINAL,), "l1_weight": 0.0, "inherit_weights": False},
        "joint-training",
        "+ feedback of the final logits to alpha",
    ),
    (
        "feedback-2-levels",
        CUMULATIVE,
        {"feedback_levels": (1, FINAL), "l1_weight": 0.0, "inherit_weights": False},
        "feedback",
        "+ feedback of the second stage's features",
    ),
    (
        "feedback-3-levels",
        CUMULATIVE,
        {"l1_weight": 0.0, "inherit_weights": False},
        "feedback-2-levels",
        "+ feedback of the first stage's features",
    ),
    (
        "l1",
        CUMULATIVE,
        {"inherit_weights": False},
        "feedback-3-levels",
        "+ the L1 norm on skip-connections (eq. 6)",
    ),
    ("paper", CUMULATIVE, {}, "l1", "+ a new E-Net inherits weights: the paper's preset, whole"),
    ("paper-no-feedback", LEFT_OUT, {"feedback_weight": 0.0}, "paper", "no feedback to alpha"),
    ("paper-no-level-0", LEFT_OUT, {"feedback_levels": (1, FINAL)}, "paper", "no feedback of the first stage"),
    ("paper-no-level-1", LEFT_OUT, {"feedback_levels": (0, FINAL)}, "paper", "no feedback of the second stage"),
    ("paper-no-final-logits", LEFT_OUT, {"feedback_levels": (0, 1)}, "paper", "no feedback of the final logits"),
    ("paper-final-logits-only", LEFT_OUT, {"feedback_levels": (FINAL,)}, "paper", "feedback of the final logits alone"),
    ("paper-no-l1", LEFT_OUT, {"l1_weight": 0.0}, "paper", "no L1 norm on skip-connections"),
    (
        "paper-random-paths",
        LEFT_OUT,
        {"random_topology": True},
        "paper",
        "E-Net's paths are drawn at random instead of proposed by S-Net",
    ),
)
"""Name, group, fields other than the paper's preset has them, row that it is compared with, what it is."""

DEFAULT_ROWS: tuple[tuple[str, str, Mapping[str, Any], str | None, str], ...] = (
    ("cdarts", DEFAULT, {}, None, "the default preset, whole"),
    ("cdarts-no-teaching", DEFAULT, {"teaching_weight": 0.0}, "cdarts", "E-Net does not teach S-Net's weights"),
    ("cdarts-no-alpha-decay", DEFAULT, {"alpha_decay": 0.0}, "cdarts", "no log-sum-exp penalty on alpha"),
    ("cdarts-not-sharp", DEFAULT, {"sharpness": 1.0}, "cdarts", "S-Net's mixtures stay plain softmaxes"),
    ("cdarts-no-inheritance", DEFAULT, {"inherit_weights": False}, "cdarts", "every new E-Net begins from nothing"),
    (
        "cdarts-random-paths",
        DEFAULT,
        {"random_topology": True},
        "cdarts",
        "E-Net's paths are drawn at random instead of proposed by S-Net",
    ),
)
"""The same for the default preset."""


def components(protocol: Protocol) -> list[Setting]:
    """What each part of the method is worth: the paper's preset built up and taken apart, the default taken apart."""
    return [
        Setting(
            name=name,
            group=group,
            preset=preset,
            algorithm=replace(_cyclic(preset, protocol), **changes),
            says=says,
            versus=versus,
        )
        for preset, rows in (("cdarts-paper", PAPER_ROWS), ("cdarts", DEFAULT_ROWS))
        for name, group, changes, versus, says in rows
    ]


# -- numbers -----------------------------------------------------------------------------------------------------------

DEPTHS = (2, 3, 5, 8, 12, 20)
"""Cells of E-Net; S-Net's own depth joins them."""

LENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Search epochs, as shares of the protocol's."""


def depth(protocol: Protocol, preset: str) -> list[Setting]:
    """How deep the evaluation network is, S-Net the same throughout. Raises `ConfigurationError`."""
    base = _cyclic(preset, protocol)
    own = base.eval_cells
    return [
        Setting(
            name=f"{cells}-cells",
            group=f"Cells of the evaluation network, preset {preset}",
            preset=preset,
            algorithm=replace(base, eval_cells=cells),
            says="E-Net as deep as S-Net" if cells == own else f"E-Net of {cells} cells",
            versus=None if cells == own else f"{own}-cells",
            position=float(cells),
        )
        for cells in sorted({*DEPTHS, own})
    ]


def epochs(protocol: Protocol, preset: str) -> list[Setting]:
    """How long is searched, a search of its own for each length. Raises `ConfigurationError`."""
    base = _cyclic(preset, protocol)
    lengths = sorted({max(round(share * protocol.epochs), protocol.still_epochs + 1) for share in LENGTHS})
    return [
        Setting(
            name=f"{length}-epochs",
            group=f"Length of the search, preset {preset}",
            preset=preset,
            algorithm=base if length == protocol.epochs else _cyclic(preset, replace(protocol, epochs=length)),
            says="as long as the protocol has it" if length == protocol.epochs else f"{length} epochs of S-Net",
            versus=None if length == protocol.epochs else f"{protocol.epochs}-epochs",
            position=float(length),
        )
        for length in lengths
    ]


CORRELATED = {
    "cdarts": "the default preset",
    "cdarts-paper": "the paper's preset",
    "darts": "DARTS, first order: it has no E-Net",
    "single-path": "single-path one-shot: weights of random paths",
}
"""Presets whose networks are asked how they rank cells."""

POINTS = (0.25, 0.5, 0.75)
"""Shares of the search network's epochs after which networks are asked, besides at the end."""


def correlation(protocol: Protocol) -> list[Setting]:
    """Searches whose networks rank random cells, over seeds and over epochs."""
    return [
        Setting(
            name=name,
            group="Searches",
            preset=name,
            algorithm=preset_under(name, protocol),
            says=says,
        )
        for name, says in CORRELATED.items()
    ]

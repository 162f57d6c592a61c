"""A genotype trained from scratch."""

from cdarts.retraining.config import Retraining, size_rule
from cdarts.retraining.presets import DEFAULT_PRESET, NO_PRESET, RETRAINING_PRESETS, RETRAINING_SUMMARIES

__all__ = ["DEFAULT_PRESET", "NO_PRESET", "RETRAINING_PRESETS", "RETRAINING_SUMMARIES", "Retraining", "size_rule"]

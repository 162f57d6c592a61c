"""A genotype trained from scratch."""

from cdarts.retraining.config import Retraining, size_rule

__all__ = ["Retraining", "size_rule"]

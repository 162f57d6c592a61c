"""Cyclic Differentiable Architecture Search: search a network for your images, train it, use it."""

__version__ = "0.1.0"

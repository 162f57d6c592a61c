"""The engine: one loop over a plan, one descent, run directories, checkpoints. It knows nothing of architectures."""

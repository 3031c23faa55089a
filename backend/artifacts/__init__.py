"""The home of everything large: models by layer, checkpoints, results; addressed by content."""

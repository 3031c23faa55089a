"""Registered models: cut into files by layer, addressed by content."""

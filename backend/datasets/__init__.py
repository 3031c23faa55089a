"""Data sets: what silos announce of them, which is never a row."""

"""Measurements on real servers and real processes, printed as ratios: `python -m bench [names] [--quick]`."""

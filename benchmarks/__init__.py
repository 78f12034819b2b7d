"""Measurements of Tiltyard beside a peer or a ceiling, each in one run: python -m benchmarks."""

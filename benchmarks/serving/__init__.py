"""The server beside other Python model servers, one core each: ``python -m benchmarks.serving``."""

"""Bundles on disk: verified, loaded, and kept by name and version."""

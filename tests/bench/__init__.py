"""Benchmarks: figures measured side by side, never asserted. `make bench` runs them all."""

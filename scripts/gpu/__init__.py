"""Tests and benchmarks that need a GPU: ``scripts/test-gpu`` (docs/tuning.md)."""

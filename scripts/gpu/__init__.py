"""Tests and measurements that need a GPU: ``scripts/test-gpu`` (docs/tuning.md)."""

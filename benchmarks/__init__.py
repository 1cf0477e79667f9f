"""Measurements that are not tests: what is run, on what, and what came out is in RESULTS.md."""

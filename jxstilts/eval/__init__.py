"""Evaluation: prediction, metrics, retrieval, benchmarks, submissions."""

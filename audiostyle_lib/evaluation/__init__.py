"""Metrics, judges, peers and the benchmark."""

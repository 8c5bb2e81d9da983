"""Benchmarks: the fused operators, the training step and the data preparation beside their peers.

Run with ``python -m benchmarks`` from a checkout or ``pymlp bench`` from an installed package;
README.md says what is measured and how to read it.
"""

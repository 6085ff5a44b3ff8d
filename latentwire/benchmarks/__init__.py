"""Benchmarks: what an answer, a training step and the memory of both cost, against the bare passes they cannot do without."""

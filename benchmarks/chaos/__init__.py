"""Clients, a provider and recorders in trouble, and the judge of what is left: ``python benchmarks/chaos``."""

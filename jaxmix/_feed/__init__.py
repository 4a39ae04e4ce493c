"""Batches from a plan: rows read from sources, on one process or many."""

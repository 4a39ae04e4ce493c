"""Mixing inside a step: the source of each row, and the rows themselves."""

"""Assertions for users' own tests."""

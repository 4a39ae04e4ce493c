"""Adaptive weights: mixers, whose weights follow what training sees."""

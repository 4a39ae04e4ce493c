"""Adaptive weights: mixers, whose weights follow scores from the training."""

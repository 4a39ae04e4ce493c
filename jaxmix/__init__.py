"""Anneal the mixture of training data, losses or distributions in JAX."""

from jaxmix.weights import weights_at

__all__ = ["weights_at"]

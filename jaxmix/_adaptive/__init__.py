"""Adaptive weights: the mix learns from what training sees. Private; names are public in `jaxmix`."""

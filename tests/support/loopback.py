"""What the tests with several processes share."""

import os

ENV = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
ENV["JAX_PLATFORMS"] = "cpu"
"""The environment of a process that sets its own number of CPU devices."""

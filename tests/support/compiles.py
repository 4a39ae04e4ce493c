"""How often XLA compiled, for tests of one compile."""

import contextlib

import jax


@contextlib.contextmanager
def counted_compiles():
    count = {"compiles": 0}

    def listen(event, duration, **_):
        count["compiles"] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

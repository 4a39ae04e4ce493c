"""The pmap example: eight devices train on the rows of one, compiled once."""

import chex
import jax
import numpy as np
import pmap_step as example
import pytest


def test_one_device_and_eight_train_on_the_same_rows(monkeypatch, capsys):
    chex.clear_trace_counter()
    once_a_run = chex.assert_max_traces(example.train_step, n=2)
    monkeypatch.setattr(example, "train_step", once_a_run)
    with jax.numpy_dtype_promotion("standard"):  # optax.adam needs it
        runs = example.main(["--fast"])
    assert list(runs) == [1, 8]
    (one, one_losses, _), (eight, eight_losses, _) = runs[1], runs[8]
    assert one.shape == (30, 64) and (one == eight).all()
    np.testing.assert_allclose(one_losses, eight_losses, rtol=1e-4)
    assert np.isfinite(one_losses).all()
    assert (one[0] == 0).all() and (one[-8:] == 1).mean() > 0.8
    assert capsys.readouterr().out.count("rows as on one device: True") == 2


def test_a_batch_that_the_devices_do_not_split_is_refused(capsys):
    with pytest.raises(SystemExit):
        example.main(["--fast", "--batch-size", "60"])
    assert "--batch-size must be a multiple of the 8 devices" in capsys.readouterr().err

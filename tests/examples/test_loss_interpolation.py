"""The example of the losses, end to end on its real data: its table and picture are of its runs."""

import jax
import loss_interpolation as example
import matplotlib.image
import numpy as np


def test_a_fast_run_prints_what_it_measured_and_draws_a_picture(tmp_path, capsys):
    picture = tmp_path / "new folder" / "picture.png"
    with jax.numpy_dtype_promotion("standard"):  # optax's adam knows no strict promotion
        runs = example.main(["--fast", "--out", str(picture)])
    text = capsys.readouterr().out
    assert list(runs) == ["labels only", "teacher only", "half and half", "hard switch", "anneal"]
    for name, run in runs.items():
        assert run.weights.shape == (40, 3) and run.accuracy.shape[1:] == (2,)
        np.testing.assert_allclose(run.weights.sum(1), 1.0, atol=1e-6)
        assert run.losses[-1, 1].mean() < run.losses[0, 1].mean()
        assert f"{name:14}{100 * run.accuracy[-1].mean():9.1f}" in text
    anneal = runs["anneal"].weights
    np.testing.assert_allclose(anneal[0], [0.7, 0.0, 0.3], atol=1e-6)
    assert anneal[-1].tolist() == [0.0, 1.0, 0.0]
    height, width, _ = matplotlib.image.imread(picture).shape
    assert height > 500 and width > 1000

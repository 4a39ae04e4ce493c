"""HuggingFace datasets as sources: sliced once a step, every column kept."""

import datasets
import numpy as np
import pytest

from jaxmix import MixPlan, PlanSource


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("form", [None, "numpy"])
def test_a_dataset_is_read_by_slice_or_index(form, parts):
    columns = {"id": list(range(20)), "text": [f"row {i}" for i in range(20)]}
    dataset = datasets.Dataset.from_dict(columns).with_format(form)
    other = {"id": np.arange(100, 130), "text": np.array([f"other row {i}" for i in range(30)])}
    plan = MixPlan(0.5, 12, seed=6)
    feeds = [
        PlanSource(plan, [dataset, other], 9, shard_index=part, shard_count=parts)
        for part in range(parts)
    ]
    for step in (0, 3, 8):  # in step 3 the data set's next epoch begins
        rows = [feed[step]["rows"] for feed in feeds]
        source, index = plan.rows(step)
        ids = np.concatenate([r["id"] for r in rows])
        texts = np.concatenate([r["text"] for r in rows])
        assert (ids == np.where(source == 0, index % 20, 100 + index % 30)).all()
        wanted = [
            f"{'other ' * s}row {i % (30 if s else 20)}" for s, i in zip(source, index, strict=True)
        ]
        assert texts.tolist() == wanted


@pytest.mark.parametrize("is_first", [True, False])
def test_another_dtype_is_refused_with_the_format_that_changes_it(is_first):
    floats, counts = np.full(9, 0.5, np.float32), np.arange(9)
    dataset = datasets.Dataset.from_dict({"x": floats, "n": counts})  # without a format, float64

    def feed(dataset):
        sources = [dataset, {"x": floats, "n": counts}]
        return PlanSource(MixPlan(0.5, 4), sources if is_first else sources[::-1], 2)

    with pytest.raises(TypeError, match=r"\['x'\] of source 1 must .*\.with_format\(\"numpy\"\)"):
        feed(dataset)
    assert feed(dataset.with_format("numpy"))[0]["rows"]["x"].dtype == np.float32
    with pytest.raises(TypeError, match="as in source 0, got"):  # a transform has its own dtypes
        feed(dataset.with_transform(lambda rows: {**rows, "x": np.asarray(rows["x"], np.float16)}))

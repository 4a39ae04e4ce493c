"""Packing: packed before the mix the tokens follow the schedule, packed after it they do not."""

import numpy as np
import packing as example
import pytest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("packing") / "packing.png"
    return *example.main(["--fast", "--out", str(path)]), path


def test_packed_before_the_mix_the_tokens_follow_the_schedule(run):
    """Counts are exact: over any steps from the first, to half a row."""
    planned, shares, path = run
    off = np.cumsum(shares["before the mix"] - planned) * example.BATCH_SIZE
    assert np.abs(off).max() <= 0.501
    assert path.stat().st_size > 10_000


def test_packed_after_the_mix_long_documents_outweigh_short_ones(run):
    planned, shares, _ = run
    before, after = shares["before the mix"], shares["after the mix"]
    third = len(planned) // 3
    assert after[:third].mean() < planned[:third].mean() - 0.1
    assert np.abs(after - planned).mean() > 10 * np.abs(before - planned).mean()


def test_packed_after_the_mix_a_step_of_the_plan_fills_many_batches():
    for source in range(2):
        lengths = [len(text.encode()) for _, text in example.documents(source, 300_000)]
        assert np.mean(lengths) > 1.5 * example.ROW_TOKENS


def test_packing_loses_and_moves_no_token():
    documents = [np.arange(k, k + n, dtype=np.int32) for k, n in ((0, 700), (700, 3), (703, 2000))]
    rows = np.stack(list(example.pack(documents)))
    whole = 2703 // example.ROW_TOKENS
    assert rows.tolist() == np.arange(whole * example.ROW_TOKENS).reshape(whole, -1).tolist()


def test_a_token_says_its_source_and_its_byte():
    text = "def f(): ... # é"
    source, tokens = np.divmod(example.tokenize((1, text)), example.VOCABULARY)
    assert bytes(tokens.tolist()).decode() == text and set(source) == {1}

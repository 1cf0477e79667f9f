"""Which task each step takes: the formulas of protocol 1.6, and the batches that come of it."""

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.data import batching, pipeline
from jxstilts.data.features import Features
from jxstilts.runtime import InputError
from jxstilts.train import mixture
from jxstilts.train.mixture import Sampling, Stream

SIZES = st.lists(st.integers(1, 1_000_000), min_size=1, max_size=9)


def streams(**modes: tuple[str, float] | None) -> dict[str, Stream]:
    """name -> Stream; None = sampled."""
    return {
        name: Stream(batch_size=8, **({} if mode is None else {"mode": mode[0], "amount": mode[1]}))
        for name, mode in modes.items()
    }


@given(SIZES, st.integers(1, 10_000), st.floats(0.5, 20))
def test_probabilities_are_the_formulas(sizes, cap, temperature):
    n = np.array(sizes, float)
    expected = {
        Sampling(): n,
        Sampling("capped", cap=cap): np.minimum(n, cap),
        Sampling("temperature", temperature=temperature): n ** (1 / temperature),
        Sampling("temperature", cap=cap, temperature=temperature): np.minimum(n, cap) ** (1 / temperature),
        Sampling("uniform"): np.ones(len(n)),
    }
    for sampling, weights in expected.items():
        np.testing.assert_allclose(sampling.probabilities(sizes), weights / weights.sum(), rtol=1e-12)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 100_000), min_size=2, max_size=9), st.integers(0, 2**31), st.integers(1, 1000))
def test_draws_follow_the_probabilities(sizes, seed, cap):
    names = {f"t{i}": size for i, size in enumerate(sizes)}
    plan, steps = streams(**dict.fromkeys(names)), 20_000
    for sampling in (Sampling(), Sampling("capped", cap=cap), Sampling("temperature", temperature=3.0)):
        p = sampling.probabilities(sizes)
        found = np.bincount(mixture.draw(plan, sampling, names, steps, seed), minlength=len(sizes)) / steps
        assert np.all(np.abs(found - p) <= 5 * np.sqrt(p * (1 - p) / steps) + 1 / steps)


@settings(max_examples=30)
@given(st.floats(0.01, 0.6), st.floats(0.01, 0.35), st.integers(1, 3000), st.integers(0, 99))
def test_alternate_tasks_take_exactly_their_share_evenly_spaced(first, second, steps, seed):
    plan = streams(a=None, text=("alternate", first), more=("alternate", second))
    order = mixture.draw(plan, Sampling(), {"a": 5, "text": 7, "more": 9}, steps, seed)
    for place, share in ((1, first), (2, second)):
        taken = np.cumsum(order == place)
        assert np.all(np.abs(taken - share * np.arange(1, steps + 1)) < 2)


def test_half_of_the_steps_is_every_other_step():
    plan = streams(a=None, text=("alternate", 0.5))
    assert mixture.draw(plan, Sampling(), {"a": 5, "text": 7}, 6, 0).tolist() == [0, 1, 0, 1, 0, 1]


def test_the_number_of_steps():
    plan = streams(a=None, b=None, text=("alternate", 0.5), beside=("mixed", 1.0))
    whole = {"a": 100, "b": 7, "text": 3, "beside": 4}
    assert mixture.count_steps(plan, Sampling(), whole, 3.0) == 2 * 3 * 107
    # min(n, cap) / batch size: ceil(100 / 8) = 13 steps of a, b's 7 steps have at most 56 inputs
    assert mixture.count_steps(plan, Sampling("capped", cap=100), whole, 3.0) == 2 * 3 * (13 + 7)


def test_draws_are_a_function_of_the_seed():
    plan, sizes = streams(a=None, b=None), {"a": 3, "b": 3}
    one, again, other = (mixture.draw(plan, Sampling(), sizes, 200, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    longer = mixture.draw(plan, Sampling(), sizes, 400, 1)
    assert np.array_equal(longer[:200], one)


def source(count: int, steps: int, seed: int) -> pipeline.BatchSource:
    """Batches of two features of one token; the token is the feature's number."""
    features = Features(np.arange(count, dtype=np.int32), np.arange(count + 1))
    lengths = features.lengths
    plan = lambda epoch: batching.plan_epoch(lengths, batch_size=2, buckets=(4,), seed=seed, epoch=epoch)  # noqa: E731
    return pipeline.BatchSource(features, plan, steps, **samples.as_batch("text"))


def test_each_stream_goes_through_its_own_epochs():
    """A stream's n-th batch is the n-th of its own source, in any order of the steps; mixed ones come with all."""
    order = np.array([0, 1, 0, 0, 1, 0, 0, 0], np.int32)
    sources = {"a": source(6, 6, 1), "b": source(4, 2, 2), "beside": source(5, 8, 3)}
    mixed = mixture.MixtureSource(order, sources, ("beside",))
    batches = list(pipeline.Batches(mixed))
    assert [set(batch) for batch in batches] == [{"ab"[i], "beside"} for i in order]
    for place, name in enumerate("ab"):
        found = [batch[name]["tokens"] for batch in batches if name in batch]
        assert np.array_equal(found, [sources[name][i]["tokens"] for i in range(int((order == place).sum()))])
    seen = [token for batch in batches if "a" in batch for token in batch["a"]["tokens"][:, 0].tolist()]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))  # two whole epochs of six
    assert np.array_equal([b["beside"]["index"] for b in batches], [sources["beside"][i]["index"] for i in range(8)])
    resumed = list(pipeline.Batches(mixed, start_step=3))
    for one, other in zip(batches[3:], resumed, strict=True):
        for name in one:
            assert all(np.array_equal(one[name][key], other[name][key]) for key in one[name])


def test_a_process_has_its_rows_of_every_stream():
    mixed = mixture.MixtureSource(np.zeros(3, np.int32), {"a": source(6, 3, 1), "b": source(6, 3, 2)}, ("b",))
    whole = list(pipeline.Batches(mixed))
    parts = [list(pipeline.Batches(mixed, process_index=i, process_count=2)) for i in range(2)]
    for step, batch in enumerate(whole):
        for name in ("a", "b"):
            joined = np.concatenate([part[step][name]["tokens"] for part in parts])
            assert np.array_equal(joined, batch[name]["tokens"])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Sampling("propotional"), "did you mean 'proportional'"),
        (lambda: Sampling("capped"), "needs sampling.cap"),
        (lambda: Sampling(cap=5), "no effect"),
        (lambda: Sampling(temperature=2.0), "for method='temperature' only"),
        (lambda: Stream(mode="alternat"), "did you mean 'alternate'"),
        (lambda: Stream(mode="alternate", amount=1.0), "between 0 and 1"),
        (lambda: Stream(mode="mixed"), "above 0"),
        (lambda: Stream(amount=0.5), "needs mode="),
        (lambda: Stream(languages=()), "languages is empty"),
        (
            lambda: mixture.resolve({"text": Stream(objective="mlm")}, "authors", "c.tasks"),
            r"c.tasks.text.batch_size: .*no default",
        ),
        (
            lambda: mixture.resolve({"mnly": Stream()}, "authors", "c.tasks"),
            "c.tasks.mnly: unknown task 'mnly'; did you mean",
        ),
        (
            lambda: mixture.resolve({"mnli": Stream(mode="alternate", amount=0.5)}, "authors", "c.tasks"),
            "needs mode='sampled'",
        ),
        (
            lambda: mixture.resolve(
                {
                    "mnli": Stream(),
                    "a": Stream(task="mnli", mode="alternate", amount=0.5),
                    "b": Stream(task="mnli", mode="alternate", amount=0.5),
                },
                "authors",
                "c.tasks",
            ),
            "add up to 1 or more",
        ),
    ],
)
def test_refusals(make, text):
    with pytest.raises(InputError, match=text):
        make()


def test_defaults_are_the_recipe():
    found = mixture.resolve({"nli": Stream(task="mnli"), "squad_v1": Stream(batch_size=4)}, "authors", "c.tasks")
    assert (found["nli"].task, found["nli"].batch_size, found["nli"].max_length) == ("mnli", 32, 256)
    assert (found["squad_v1"].batch_size, found["squad_v1"].max_length) == (4, 384)

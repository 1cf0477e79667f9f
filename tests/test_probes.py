"""What hidden states tell of the language: the probe and CKA, by hand and on a micro encoder's states."""

import types

import numpy as np
import pytest

from jxstilts.eval import probes
from jxstilts.runtime import InputError


def test_a_probe_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    noise = rng.normal(size=(400, 6))
    apart = noise + 8 * np.eye(4, 6)[labels]
    one, other = np.arange(400) % 2 == 0, np.arange(400) % 2 == 1
    assert probes.linear_probe(apart[one], labels[one], apart[other], labels[other]) > 99
    assert probes.linear_probe(noise[one], labels[one], noise[other], labels[other]) < 40  # of 25 by chance
    with pytest.raises(InputError, match="two classes"):
        probes.linear_probe(noise, labels * 0, noise, labels * 0)


def test_cka_by_hand():
    """The same states turned and scaled: 1. Of one column each it is the squared correlation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)) + 3
    turned = 5 * x @ np.linalg.qr(rng.normal(size=(4, 4)))[0] - 1
    assert probes.linear_cka(x, turned) == pytest.approx(1)
    y = x[:, 0] + rng.normal(size=50)
    assert probes.linear_cka(x[:, :1], y[:, None]) == pytest.approx(np.corrcoef(x[:, 0], y)[0, 1] ** 2)
    assert probes.linear_cka(x, rng.normal(size=(50, 4))) < 0.3
    assert np.isnan(probes.linear_cka(x, np.ones((50, 2))))


def test_states():
    """State 0 tells nothing of the language and has translations side by side; state 1 is the language alone."""
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(40, 5))

    def embed(sentences):
        codes = [["en", "de", "sw"].index(each["text"].split()[0]) for each in sentences]
        of = meaning[[int(each["text"].split()[1]) for each in sentences]]
        return np.stack([of, np.eye(5)[codes] + 0.01 * of])

    said = lambda code: [{"id": str(i), "text": f"{code} {i}"} for i in range(40)]  # noqa: E731
    pairs = {code: {"source": said(code), "target": said("en")} for code in ("de", "sw")}
    found = probes.states(types.SimpleNamespace(embed=embed), pairs)
    assert found[0]["language"] == pytest.approx(100 / 3, abs=7) and found[0]["cka"] == pytest.approx(1)
    assert found[1]["language"] == 100
    pairs["sw"] = {side: sentences[:30] for side, sentences in pairs["sw"].items()}
    with pytest.raises(InputError, match="as many sentences each"):
        probes.states(types.SimpleNamespace(embed=embed), pairs)

"""The forward pass gives the numbers that transformers gives: golden files, no torch needed."""

from functools import partial

import jax
import numpy as np
import pytest
from golden.batches import FOLDERS, HERE, expected, one_per_row, worst

from jxstilts.models import bundle


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden(folder):
    loaded, wanted = bundle.load(HERE / folder), expected(folder)
    model, params, mask = loaded.model, loaded.params, wanted["mask"]
    batch = one_per_row(wanted["tokens"], mask, wanted.get("types"))
    hidden = jax.jit(partial(model.encode, all_hidden=True))(params, batch)
    assert hidden.shape == wanted["hidden"].shape
    assert worst(hidden, wanted["hidden"], mask) < 1e-5

    name = folder.rpartition("_")[2]
    if name == "classification":
        assert model.head_specs[0].labels == ("contradiction", "entailment", "neutral")
        assert worst(model.head(name).predict(params, hidden[-1], batch)["logits"][:, 0], wanted["logits"]) < 1e-5
    elif name == "span":
        logits = model.head(name).predict(params, hidden[-1], batch)["logits"]
        assert worst(logits, np.stack([wanted["start"], wanted["end"]], -1), mask) < 1e-5
    elif name == "tagging":
        assert model.head_specs[0].labels == ("contradiction", "entailment", "neutral")
        assert worst(model.head(name).logits(params, hidden[-1]), wanted["logits"], mask) < 1e-5
        classes = model.head(name).predict(params, hidden[-1], batch)["classes"]
        np.testing.assert_array_equal(np.asarray(classes)[mask == 1], wanted["logits"].argmax(-1)[mask == 1])
    elif name == "choice":
        logits = model.head(name).logits(params, hidden[-1], batch)
        assert worst(logits[:, 0], wanted["logits"][0]) < 1e-5
    elif name == "mlm":
        every = np.broadcast_to(np.arange(mask.shape[1], dtype=np.int32), mask.shape)
        logits = model.head(name).predict(params, hidden[-1], {"mlm_positions": every})["logits"]
        assert worst(logits, wanted["logits"], mask) < 1e-5
    elif "pooled" in wanted:
        pooler = params["encoder"]["pooler"]
        assert worst(np.tanh(hidden[-1][:, 0] @ pooler["kernel"] + pooler["bias"]), wanted["pooled"]) < 1e-5


def test_every_kind_is_covered():
    heads = {"", "_classification", "_choice", "_span", "_mlm", "_tagging"}
    assert {family + head for family in ("bert", "modernbert") for head in heads} <= set(FOLDERS)
    assert {"xlmr" + head for head in heads - {"_choice"} | {"_xl_mlm"}} <= set(FOLDERS)

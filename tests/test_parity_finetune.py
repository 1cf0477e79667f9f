"""The same fine-tuning here and in transformers on PyTorch, from the same weights: the same losses and predictions."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from jxstilts import miniworld, tasks
from jxstilts.data import batching, packing
from jxstilts.data import tokenizer as tokenizers
from jxstilts.forms import Reading
from jxstilts.models import export, huggingface
from jxstilts.models.model import Model, family_module, make_config

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parent.parent
TOKENIZER = pathlib.Path(miniworld.__path__[0]) / "micro" / "tokenizer"


@pytest.fixture(scope="module")
def finetune():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        platforms = jax.config.jax_platforms
        torch.set_num_threads(1)  # tiny operations: threads would only wait for each other
        patch.setattr(torch, "set_num_threads", lambda count: None)
        from benchmarks import finetune

        yield finetune
        jax.config.update("jax_platforms", platforms)


def encoder(family, folder):
    """Writes a random encoder with the miniature world's tokenizer, as Hugging Face has it."""
    size = {"width": 32, "layers": 2, "heads": 4, "mlp": 64}
    config = make_config(family, vocab_size=len(tokenizers.load(TOKENIZER)), max_positions=128, **size)
    model = Model(config, family=family)
    params = jax.jit(model.init)(jax.random.key(0))
    export.to_huggingface(huggingface.Loaded(model, params, TOKENIZER), folder)
    return folder


def measure(finetune, family, world, tmp_path, *arguments):
    out = tmp_path / "result.json"
    given = [f"--model={encoder(family, tmp_path / 'encoder')}", f"--data_dir={world}", "--languages=en,de"]
    given += ["--rows=40", "--batch_size=8", "--evaluated=30", "--max_length=64", "--learning_rate=1e-3"]
    assert finetune.main([*given, f"--out={out}", *arguments]) == 0
    result = json.loads(out.read_text())
    for found in result["found"]:
        assert list(found["languages"]) == ["de", "en"]
        for row in (*found["languages"].values(), found["mean"]):
            assert row["difference"] == pytest.approx(row["jxstilts"] - row["torch"])
            assert row["low"] <= row["difference"] <= row["high"]
    still = result["found"][0]
    (run,) = still["runs"]
    assert still["dropout"] == 0 and abs(still["mean"]["difference"]) <= finetune.LIMIT
    assert run["steps"] == len(set(run["losses"]["torch"])) == 5 and run["logits_difference"] < 1e-5
    np.testing.assert_allclose(run["losses"]["jxstilts"], run["losses"]["torch"], atol=2e-4)
    assert min(run["tokens"].values()) >= run["real_tokens"] > 0
    return result["found"]


def test_tagging_with_and_without_dropout(finetune, world, tmp_path, capsys):
    _, dropped = measure(finetune, "xlmr", world, tmp_path)
    (run,) = dropped["runs"]
    assert max(np.abs(np.subtract(*run["losses"].values()))) > 1e-3  # each side draws its own
    assert "95 % interval" in capsys.readouterr().out


def test_pairs_with_token_types_and_frozen_embeddings(finetune, world, tmp_path):
    measure(finetune, "bert", world, tmp_path, "--task=xnli", "--freeze", "--dropouts=0")


def test_sides_that_differ_end_with_1(finetune, world, tmp_path, monkeypatch, capsys):
    def trained(self, dropout, seed):
        kept = {
            code: {row["id"]: seed + i % 3 < 2 for i, row in enumerate(rows)} for code, rows in self.examples.items()
        }
        kept = {code: finetune._kept({"accuracy": right}) for code, right in kept.items()}
        wrong = {code: finetune._kept({"accuracy": dict.fromkeys(one.ids, 0)}) for code, one in kept.items()}
        values = {"jxstilts": {"en": 100 / 3}, "torch": {"en": 0.0}}
        pair = {"jxstilts": 1.0, "torch": 2.0}
        figures = {"steps": 1, "logits_difference": 0.0, "losses": {name: [1.0] for name in pair}, "compiling": 1.0}
        figures |= {"seconds": pair, "in_all": pair}
        return {"kept": {"jxstilts": kept, "torch": wrong}, "values": values, "figures": figures}

    monkeypatch.setattr(finetune._Ready, "train", trained)
    given = [f"--model={encoder('xlmr', tmp_path / 'encoder')}", f"--data_dir={world}", "--languages=en"]
    assert finetune.main([*given, "--task=xnli", "--evaluated=30", "--dropouts=0", "--seeds=2"]) == 1
    printed = capsys.readouterr()
    assert "without dropout the means differ by 50.00 points" in printed.err and "2 seeds" in printed.out
    assert finetune.main([*given, "--task=xnli", "--evaluated=30", "--dropouts=0.1"]) == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_apart_is_what_one_example_a_row_gives(finetune, sizes):
    spec, template = tasks.get("udpos"), family_module("bert").TEMPLATE
    words, tags = itertools.cycle(samples.WORDS), itertools.cycle((*spec.labels, "X", "ADJ"))
    examples = [
        {"id": str(i), "words": list(itertools.islice(words, n)), "tags": list(itertools.islice(tags, n))}
        for i, n in enumerate(sizes)
    ]
    reading = Reading(max_length=24, long_sentences="truncate")
    features = spec.form.tokenize(examples, samples.word_tokenizer(), template, reading, spec.labels)
    more = {"fields": spec.form.batch_fields(template), "pad_id": 1}
    plans, segments = packing.plan_evaluation(features.lengths, tokens_per_batch=240, max_length=24)
    for packed in batching.batches(features, plans, max_segments=segments, **more):
        ids = packed["index"][packed["index"] >= 0]
        longest = int(features.lengths[ids].max())
        alone = batching.assemble(
            features, [(i,) for i in ids], length=longest, num_rows=len(ids), max_segments=1, **more
        )
        found = finetune.apart(packed, 1)
        assert found.keys() == alone.keys()
        for name, array in alone.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_is_not_there_is_said(finetune, tmp_path, capsys):
    given = [f"--model={tmp_path}", f"--data_dir={tmp_path}"]
    assert finetune.main([*given, "--dropouts=none"]) == 2
    assert "--dropouts" in capsys.readouterr().err
    assert finetune.main(given) == 2
    assert "config.json" in capsys.readouterr().err

"""A published encoder in two families' layouts: the same hidden states in both, and those of transformers.

JXSTILTS_E5 names a folder with multilingual-e5-small in Hugging Face's format twice: `bert` as published, and `xlmr`,
the same function as an XLMRobertaModel (two rows of positions more in front, one token type).
"""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest
from golden.batches import one_per_row, packed, worst

from jxstilts import tasks
from jxstilts.data import tokenizer
from jxstilts.eval.evaluator import Evaluator, Options
from jxstilts.eval.trim import trim
from jxstilts.models import bundle, huggingface

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every day.",
    "Das ist ein kurzer Satz.",
    "यह एक वाक्य है।",
    "我们今天去图书馆看书,然后回家吃饭。",
)


@pytest.fixture(scope="module")
def folder():
    path = pathlib.Path(os.environ.get("JXSTILTS_E5", "nowhere"))
    if not all((path / layout / "model.safetensors").is_file() for layout in ("bert", "xlmr")):
        pytest.skip("JXSTILTS_E5 does not name a folder with bert/ and xlmr/ (see the top of this file)")
    return path


def test_all_hidden_states_in_both_layouts(folder, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    found = {}
    ids = tokenizer.load(folder / "bert")(list(SENTENCES)).input_ids
    mask = np.array([[1] * len(row) + [0] * (64 - len(row)) for row in ids])
    tokens = np.array([row + [1] * (64 - len(row)) for row in ids])
    for layout in ("bert", "xlmr"):
        loaded = huggingface.load(folder / layout, hash_files=False)
        bundle.save(tmp_path / layout, loaded.model, loaded.params)
        model, params = (loaded := bundle.load(tmp_path / layout)).model, loaded.params
        assert (model.family, model.config.max_positions, model.config.layers) == (layout, 512, 12)
        hidden = jax.jit(lambda params, batch, model=model: model.encode(params, batch, all_hidden=True))
        found[layout] = np.asarray(hidden(params, one_per_row(tokens, mask)))
        row = np.asarray(hidden(params, packed(tokens, mask, int(mask.sum()))))[:, 0]
        apart = np.concatenate([found[layout][:, i, :n] for i, n in enumerate(mask.sum(1))], axis=1)
        assert worst(row, apart) < 1e-5, layout
    assert found["bert"].shape[0] == 13 and worst(found["bert"], found["xlmr"], mask) < 1e-5
    # The weights are stored in float16, and transformers computes in what it finds.
    oracle = transformers.AutoModel.from_pretrained(folder / "bert", add_pooling_layer=False).float().eval()
    assert type(oracle).__name__ == "BertModel"
    with torch.no_grad():
        wanted = oracle(torch.tensor(tokens), torch.tensor(mask), output_hidden_states=True).hidden_states
    differences = [worst(ours, theirs, mask) for ours, theirs in zip(found["bert"], wanted, strict=True)]
    print("largest difference of each hidden state", differences)
    assert max(differences) < 1e-5


@pytest.mark.parametrize("layout", ["bert", "xlmr"])
def test_tatoeba_by_the_models_own_recipe(layout, folder, corpus):
    """Accuracy as sentence-transformers' recipe gives it, mean of the last state; the rest is the protocol's search."""
    loaded = bundle.load(folder / layout, verify=False)
    run = Evaluator(loaded.model, loaded.params, tokenizer.load(folder / layout))
    task = tasks.get("tatoeba")
    examples = {language: tasks.load("tatoeba", corpus, "test", language) for language in ("sw", "ta")}
    found = {result.language: result for result in run.languages(task, examples.items())}
    for language, expected in {"sw": 81.3, "ta": 89.6}.items():
        assert found[language].metrics["accuracy"] == pytest.approx(expected, abs=0.2)
    middle = dataclasses.replace(run, options=Options(sentence="protocol")).options.resolve(task, loaded.model).layer
    assert middle == 7 and found["ta"].curve[7]["accuracy"] < 80 < found["ta"].curve[12]["accuracy"]


def test_trimmed_to_two_languages_it_gives_the_same_vectors(folder, corpus, tmp_path):
    lines = []
    trim(str(folder / "xlmr"), tmp_path / "small", corpus, ["xnli"], ["en", "sw"], say=lines.append)
    print("\n".join(lines))
    sides = [tasks.load("xnli", corpus, "test", language, limit=25) for language in ("en", "sw")]
    sentences = [{"id": f"{place}/{e['id']}", "text": e["text_a"]} for place, side in enumerate(sides) for e in side]
    found, sizes = [], []
    for path in (folder / "xlmr", tmp_path / "small"):
        loaded = bundle.load(path, verify=False)
        run = Evaluator(loaded.model, loaded.params, tokenizer.load(loaded.tokenizer_dir))
        found.append(run.vectors(sentences))
        sizes.append(loaded.model.config.vocab_size)
    assert sizes[1] < 0.1 * sizes[0] and len(found[0]) == 50
    np.testing.assert_array_equal(*found)

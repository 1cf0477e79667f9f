"""Templates: special tokens around texts and token types, against a plain loop over one input at a time."""

import types

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from jxstilts.data.ragged import offsets_of
from jxstilts.data.template import Template
from jxstilts.runtime import InputError

WORDS = types.SimpleNamespace(cls_token_id=101, sep_token_id=102, eos_token_id=1, mask_token_id=None)
TEMPLATES = {
    "xlmr": samples.template(),
    "bert": Template(types=True),
    "eos": Template(single=("A", "eos"), pair=("A", "B", "eos"), types=True),
    "other specials for one text": Template(single=("sep", "A"), pair=("cls", "A", "sep", "B", "sep"), types=True),
}
TEXT = st.lists(st.integers(1000, 1099), max_size=7)


def plain(template, a, b):
    """One input: its tokens, their types, and where A and B begin."""
    tokens, kinds, begins = [], [], {}
    for part in template.single if b is None else template.pair:
        if part in "AB":
            begins[part] = len(tokens)
        own = {"A": a, "B": b}[part] if part in "AB" else [getattr(WORDS, f"{part}_token_id")]
        tokens += own
        kinds += [int("B" in begins)] * len(own)
    return tokens, kinds, begins


def laid(texts, order):
    """The texts as parts of one flat array, in which they lie in another order, with strangers between them."""
    flat, starts = [], {}
    for i in order:
        flat += [0]
        starts[i] = len(flat)
        flat += texts[i]
    starts = np.array([starts[i] for i in range(len(texts))], np.int64)
    return np.array(flat, np.int32), starts, np.array([len(text) for text in texts], np.int64)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=6), st.randoms(use_true_random=False))
def test_inputs_are_as_in_a_plain_loop(name, inputs, random):
    template, order = TEMPLATES[name], list(range(len(inputs)))
    random.shuffle(order)
    firsts, seconds = laid([a for a, _ in inputs], order), laid([b or [] for _, b in inputs], order[::-1])
    is_pair = np.array([b is not None for _, b in inputs], bool)
    filled = template.fill(WORDS, firsts, seconds, is_pair=is_pair)
    expected = [plain(template, a, b) for a, b in inputs]
    assert filled.tokens.tolist() == [token for tokens, _, _ in expected for token in tokens]
    assert filled.offsets.tolist() == offsets_of(np.array([len(tokens) for tokens, _, _ in expected], int)).tolist()
    assert filled.tokens.dtype == np.int32 and len(filled.begins["A"]) == len(inputs)
    for i, (tokens, _, begins) in enumerate(expected):
        assert {text: filled.begins[text][i] for text in begins} == begins
        assert len(tokens) - sum(map(len, filter(None, inputs[i]))) == template.specials(pair=bool(is_pair[i]))
    assert (
        set(filled.token_fields)
        == {field.source for field in template.fields}
        == ({"types"} & {*(template.types * ["types"])})
    )
    if template.types:
        assert filled.token_fields["types"].tolist() == [kind for _, kinds, _ in expected for kind in kinds]
        assert filled.token_fields["types"].dtype == np.int32
    if is_pair.all() and len(inputs):  # the same without saying so
        again = template.fill(WORDS, firsts, seconds)
        assert again.tokens.tolist() == filled.tokens.tolist() and again.offsets.tolist() == filled.offsets.tolist()
    if not is_pair.any():
        again = template.fill(WORDS, firsts)
        assert again.tokens.tolist() == filled.tokens.tolist() and "B" not in again.begins


def test_published_layouts():
    """XLM-R: `<s> A </s></s> B </s>` (Conneau et al. 2020); BERT: `[CLS] A [SEP] B [SEP]`, types 0 and 1."""
    a, b = laid([[7, 8]], [0]), laid([[9]], [0])
    assert samples.template().fill(WORDS, a, b).tokens.tolist() == [101, 7, 8, 102, 102, 9, 102]
    assert samples.template().fill(WORDS, a).tokens.tolist() == [101, 7, 8, 102]
    filled = Template(types=True).fill(WORDS, a, b)
    assert filled.tokens.tolist() == [101, 7, 8, 102, 9, 102]
    assert filled.token_fields["types"].tolist() == [0, 0, 0, 0, 1, 1]


def test_a_special_token_that_the_tokenizer_lacks_is_named():
    template = Template(single=("mask", "A"), pair=("mask", "A", "sep", "B"))
    with pytest.raises(
        InputError, match=r"no mask_token, .*\(mask A sep B\) need; name it in its tokenizer_config.json"
    ):
        template.fill(WORDS, laid([[7]], [0]))

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import ids, rows

from jxstilts.runtime import InputError

CLS, SEP, UNK = 0, 2, 3


def sentence(*words, tags=None, id="s"):
    return {"id": id, "words": list(words)} | ({} if tags is None else {"tags": list(tags)})


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_words_are_tokenised_one_by_one_and_the_first_subword_has_the_tag(model):
    small = samples.small_tokenizer(model)
    words = ["Who", "finished", "the", "tower", "?", "สุนัขจิ้งจอก", "ᚠ", "", "\u200b" * 2, "x" * 300, "two words"]
    tags = ["P", "V", "D", "N", "?", "N", "X", "X", "N", "V", "N"]
    features = samples.tokenize(
        [sentence(*words, tags=tags)], "tagging", small, max_length=512, labels=("N", "V", "D", "P", "X")
    )
    expected, places, numbers = [CLS], [], {}
    for number, (word, tag) in enumerate(zip(words, tags, strict=True)):
        own = ids(small, word)
        own = own if 0 < len(own) <= 100 else [UNK]
        places.append(-1 if tag == "?" else "NVDPX".index(tag))
        numbers[len(expected)] = number
        expected += own
    assert rows(features) == [[*expected, SEP]]
    word, tag = features.token_fields["word"], features.token_fields["tag"]
    assert {place: word[place] for place in np.flatnonzero(word >= 0).tolist()} == numbers
    assert tag[word >= 0].tolist() == places and (tag[word < 0] == -1).all()
    assert word.dtype == tag.dtype == np.int32
    long, empty = ids(small, "x" * 300), ids(small, "")
    assert len(long) > 100 and not empty and rows(features)[0].count(UNK) >= 3


def test_tagging_without_tags_or_labels_and_with_wrong_ones():
    small = samples.small_tokenizer()
    plain = sentence("the", "king")
    assert set(samples.tokenize([plain], "tagging", small, max_length=9, labels=("N",)).token_fields) == {"word"}
    tagged = sentence("the", "king", tags="DN")
    assert set(samples.tokenize([tagged], "tagging", small, max_length=9).token_fields) == {"word"}
    with pytest.raises(InputError, match="example 's' has 2 words but 1 tags"):
        samples.tokenize([sentence("the", "king", tags="D")], "tagging", small, max_length=9, labels=("D",))
    with pytest.raises(InputError, match="1 of 2 examples have 'tags'"):
        samples.tokenize([plain, tagged], "tagging", small, max_length=9, labels=("D",))
    with pytest.raises(InputError, match="long_sentences 'cut'"):
        samples.tokenize([plain], "tagging", small, max_length=9, long_sentences="cut")


WORDS = [*" ".join(samples.TEXTS[:3]).split(), "สุนัขจิ้งจอกสีน้ำตาล", "", "x" * 30, "国王从塔上看着"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=14), min_size=1, max_size=5), st.integers(3, 40))
def test_long_sentences(sentences, max_length):
    small = samples.small_tokenizer()
    examples = [sentence(*words, tags=[str(i % 7) for i in range(len(words))]) for words in sentences]
    options = {"max_length": max_length, "labels": tuple("0123456")}
    whole = samples.tokenize(examples, "tagging", small, **options | {"max_length": 2000})
    cut = samples.tokenize(examples, "tagging", small, **options, long_sentences="truncate")
    assert rows(cut) == [row if len(row) <= max_length else [*row[: max_length - 1], SEP] for row in rows(whole)]
    parts = samples.tokenize(examples, "tagging", small, **options, long_sentences="split")
    for features in (cut, parts):
        assert (features.lengths <= max_length).all()
        assert features.fields["example"].tolist() == sorted(features.fields["example"].tolist())
        assert set(features.fields["example"].tolist()) == set(range(len(examples)))
        word, tag = features.token_fields["word"], features.token_fields["tag"]
        assert ((word >= 0) == (tag >= 0)).all() and (tag[word >= 0] == word[word >= 0] % 7).all()
    seen = [[] for _ in examples]
    for i, index in enumerate(parts.fields["example"].tolist()):
        cells = parts.token_fields["word"][parts.offsets[i] : parts.offsets[i + 1]]
        seen[index] += cells[cells >= 0].tolist()
        if i > 0 and parts.fields["example"][i - 1] == index:  # its first word did not fit into the piece before
            begins = np.flatnonzero(cells >= 0)
            first_word = (begins[1] if len(begins) > 1 else len(cells) - 1) - 1
            assert begins[0] == 1 and parts.lengths[i - 1] + first_word > max_length
    assert seen == [list(range(len(words))) for words in sentences]

import itertools

import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import ids, rows

from jxstilts.data import tokenizer
from jxstilts.data.features import concatenate
from jxstilts.runtime import InputError

CLS, SEP = 0, 2
CONTEXT = " ".join(samples.TEXTS[:3])


@pytest.fixture(scope="module")
def small():
    return samples.small_tokenizer()


def pair(a, b, **more):
    return {"id": "x", "text_a": a, "text_b": b, **more}


def question(context, *answers, question="Who finished the tower?", labelled=True):
    spans = [{"text": text, "start": context.index(text)} for text in answers]
    return {"id": "q", "question": question, "context": context} | ({"answers": spans} if labelled else {})


def read_answers(features, examples):
    """What the labelled windows say the answers are: [(example index, text)]."""
    found = []
    for i in range(len(features)):
        begin = features.offsets[i]
        start, end = features.fields["start"][i], features.fields["end"][i]
        if start:
            first = features.token_fields["char_start"][begin + start]
            last = features.token_fields["char_end"][begin + end]
            example = int(features.fields["example"][i])
            found.append((example, examples[example]["context"][first:last]))
        else:
            assert end == 0
    return found


# Classification.


def test_pairs_and_single_texts(small):
    examples = [pair("the king", "the tower", label=2), pair("the king", None, label=0), pair("", "", label=1)]
    features = samples.tokenize(examples, "classification", small, max_length=64)
    king, tower = ids(small, "the king"), ids(small, "the tower")
    assert rows(features) == [
        [CLS, *king, SEP, SEP, *tower, SEP],
        [CLS, *king, SEP],
        [CLS, SEP, SEP, SEP],
    ]
    assert features.fields["label"].tolist() == [2, 0, 1]
    assert features.tokens.dtype == features.fields["label"].dtype == features.lengths.dtype == np.int32


def test_labels_are_absent_or_everywhere(small):
    unlabelled = [pair("a", "b"), pair("c", "d")]
    assert "label" not in samples.tokenize(unlabelled, "classification", small, max_length=64).fields
    with pytest.raises(InputError, match="1 of 3 examples have 'label', example 'x'"):
        samples.tokenize([*unlabelled, pair("e", "f", label=1)], "classification", small, max_length=64)


def truncated(a, b, room, place=-1):
    """jiant's rule, one token at a time: the longest part loses it, the first of equals."""
    parts = [list(a), list(b)]
    while sum(map(len, parts)) > room:
        del parts[np.argmax([len(part) for part in parts])][place]
    return parts


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(6, 40), st.booleans())
def test_longest_first_truncation(length_a, length_b, max_length, single):
    small = samples.small_tokenizer()
    words = " ".join(samples.TEXTS[:3]).split()
    a, b = " ".join(words[:length_a]), " ".join(words[-length_b:] if length_b else [])
    features = samples.tokenize([pair(a, None if single else b)], "classification", small, max_length=max_length)
    kept_a, kept_b = truncated(ids(small, a), ids(small, b), max_length - 4)
    expected = [CLS, *ids(small, a)[: max_length - 2], SEP] if single else [CLS, *kept_a, SEP, SEP, *kept_b, SEP]
    assert rows(features) == [expected]


@pytest.mark.parametrize("room, kept", [(9, (4, 5)), (8, (4, 4)), (7, (3, 4)), (3, (1, 2)), (2, (1, 1))])
def test_the_first_text_loses_the_token_when_both_are_equally_long(small, room, kept):
    word = next(word for word in "the king a in of he".split() if len(ids(small, word)) == 1)
    text = " ".join([word] * 5)
    token = ids(small, word)
    choice = {"id": "x", "prompt": text, "choices": [text]}
    for type, example in (("classification", pair(text, text)), ("choice", choice)):
        features = samples.tokenize([example], type, small, max_length=room + 4)
        assert rows(features) == [[CLS, *token * kept[0], SEP, SEP, *token * kept[1], SEP]]


# Choices.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(6, 40))
def test_choices_lose_tokens_at_the_front(prompt, choices, max_length):
    small = samples.small_tokenizer()
    words = " ".join(samples.TEXTS[:3]).split()
    texts = [" ".join(words[i : i + length]) for i, length in enumerate(choices)]
    other = {"id": "y", "prompt": "the king", "choices": ["in Paris", "of Paris"], "label": 1}
    example = {"id": "x", "prompt": " ".join(words[:prompt]), "choices": texts, "label": len(texts) - 1}
    features = samples.tokenize([other, example], "choice", small, max_length=max_length)
    expected = []
    for text in texts:
        a, b = truncated(ids(small, example["prompt"]), ids(small, text), max_length - 4, place=0)
        expected.append([CLS, *a, SEP, SEP, *b, SEP])
    assert rows(features)[2:] == expected
    assert features.fields["example"].tolist() == [0, 0, *[1] * len(texts)]
    assert features.fields["label"].tolist() == [0, 1, *[0] * (len(texts) - 1), 1]
    assert features.fields["label"].dtype == features.fields["example"].dtype == np.int32


def test_choices_without_labels_and_wrong_ones(small):
    example = {"id": "q7", "prompt": "the king", "choices": ["a", "b"]}
    assert set(samples.tokenize([example], "choice", small, max_length=32).fields) == {"example"}
    for changes in ({"label": 2}, {"label": -1}, {"choices": []}):
        with pytest.raises(InputError, match=r"example 'q7' has . choices and the label"):
            samples.tokenize([example | changes], "choice", small, max_length=32)
    with pytest.raises(InputError, match="1 of 2 examples have 'label'"):
        samples.tokenize([example, example | {"label": 0}], "choice", small, max_length=32)


# Text.


def test_text_is_one_feature_per_line_cut(small):
    lines = [{"id": "0", "text": samples.TEXTS[0]}, {"id": "1", "text": ""}, {"id": "2", "text": "the king"}]
    features = samples.tokenize(lines, "text", small, max_length=8)
    assert rows(features) == [
        [CLS, *ids(small, samples.TEXTS[0])[:6], SEP],
        [CLS, SEP],
        [CLS, *ids(small, "the king"), SEP],
    ]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(["", "the king", *samples.TEXTS]), max_size=12), st.integers(3, 90))
def test_joined_lines_lose_nothing_and_split_only_long_lines(texts, max_length):
    small = samples.small_tokenizer()
    lines = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    features = samples.tokenize(lines, "text", small, max_length=max_length, joined=True)
    bodies = [row[1:-1] for row in rows(features)]
    assert all(row[0] == CLS and row[-1] == SEP for row in rows(features))
    encoded = [ids(small, text) for text in texts]
    assert list(itertools.chain(*bodies)) == list(itertools.chain(*encoded))
    room = max_length - 2
    assert all(0 < len(body) <= room for body in bodies)
    if all(len(line) <= room for line in encoded):
        expected: list[list[int]] = []
        for line in filter(None, encoded):
            if expected and len(expected[-1]) + len(line) <= room:
                expected[-1] = expected[-1] + line
            else:
                expected.append(line)
        assert bodies == expected


# Spans.


def test_answer_in_one_window(small):
    example = question(CONTEXT, "two million people", "the tower")
    features = samples.tokenize([example], "span", small, max_length=384)
    assert len(features) == 1 and read_answers(features, [example]) == [(0, "two million people")]
    asked, context = ids(small, example["question"]), ids(small, CONTEXT)
    assert rows(features) == [[CLS, *asked, SEP, SEP, *context, SEP]]
    window = slice(len(asked) + 3, -1)
    outside = np.ones(len(features.tokens), bool)
    outside[window] = False
    assert (features.token_fields["char_start"][outside] == -1).all()
    assert not features.token_fields["max_context"][outside].any()
    assert features.token_fields["max_context"][window].all()


def test_no_answer_no_labels_and_empty_context(small):
    impossible = question(CONTEXT)
    features = samples.tokenize([impossible], "span", small, max_length=384)
    assert features.fields["start"].tolist() == features.fields["end"].tolist() == [0]
    unlabelled = question(CONTEXT, labelled=False)
    assert set(samples.tokenize([unlabelled], "span", small, max_length=384).fields) == {"example"}
    empty = {"id": "q", "question": "Who?", "context": " ", "answers": [{"text": " ", "start": 0}]}
    features = samples.tokenize([empty], "span", small, max_length=384)
    assert rows(features) == [[CLS, *ids(small, "Who?"), SEP, SEP, SEP]]
    assert features.fields["start"].tolist() == [0]
    with pytest.raises(InputError, match="1 of 2 examples have 'answers'"):
        samples.tokenize([impossible, unlabelled], "span", small, max_length=384)


@pytest.mark.parametrize(
    "context, answer",
    [
        ("الثعلب البني السريع يقفز فوق الكلب الكسول.", "البني السريع"),
        ("สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ", "สีน้ำตาล"),
        ("敏捷的棕色狐狸跳过了懒狗,国王从塔上看着。", "国王"),
        ("這座塔于１８８９年完工 😀 ok", "１８８９年"),
        ("  The  ﬁne\u00a0king\u3000watches 👩‍👩‍👧 it", "ﬁne\u00a0king"),
        ("Con cáo nha\u0300 vua nhi\u0300n tu\u031b\u0300 tòa tháp", "nha\u0300 vua"),
        ("A B", "B"),
    ],
)
def test_answers_in_many_scripts(context, answer):
    for model in ("bpe", "unigram"):
        example = question(context, answer)
        features = samples.tokenize([example], "span", samples.small_tokenizer(model), max_length=128)
        ((_, text),) = read_answers(features, [example])
        assert answer in text and not text[0].isspace()
        assert len(text) <= len(answer) + 6  # no more than the rest of its first and last token


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "context, answer",
    [
        ("Ọmọ náà ń ṣeré ní ọjà, bàbá rẹ̀ sì ń wò ó.", "bàbá rẹ̀"),
        ("השׁוּעל החוּם המהיר קופץ", "החוּם"),  # points are combining marks
        ("הַשּׁוּעָל הַחוּם הַמָּהִיר קוֹפֵץ מֵעַל הַכֶּלֶב 1889", "1889"),
        ("สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ", "ข้าม"),
        ("敏捷的棕色狐狸跳过了懒狗", "敏捷"),  # the first and the last characters
        ("敏捷的棕色狐狸跳过了懒狗", "懒狗"),
        ("a é ẹ́ o", "ẹ́"),
    ],
)
def test_every_window_that_holds_the_answer_reads_it(model, context, answer):
    small = samples.small_tokenizer(model)
    example = question(context, answer, question="?")
    for max_length in range(8, 40, 3):
        options = {"max_length": max_length, "doc_stride": 2, "max_query_length": 2}
        features = samples.tokenize([example], "span", small, **options)
        found = read_answers(features, [example])
        whole = tokenizer.encode(small, [context])[0]
        assert all(answer in text and len(text) <= len(answer) + 6 for _, text in found)
        if features.lengths.max() >= 5 + len(whole):
            assert found


def test_answer_at_the_edges_of_windows(small):
    """The window that ends, or begins, with the answer has it; the one that is a token short of it has not."""
    flat, _, start, end = tokenizer.encode(small, [CONTEXT], spans=True)
    asked, room, stride = ids(small, "Who?"), 12, 5
    for first in range(len(flat) - 3):
        span = slice(start[first], end[first + 2])
        if start[first] < 0 or end[first + 2] < 0 or (start[first] == start[first + 1]):
            continue
        example = question(CONTEXT, question="Who?")
        example["answers"] = [{"text": CONTEXT[span], "start": int(span.start)}]
        options = {"max_length": room + 4 + len(asked), "doc_stride": stride, "max_query_length": 9}
        features = samples.tokenize([example], "span", small, **options)
        holds = [b <= first and first + 2 < b + n for b, n in reference_windows(len(flat), room, stride)]
        assert (features.fields["start"] > 0).tolist() == holds and any(holds)
        assert {text for _, text in read_answers(features, [example])} == {CONTEXT[span]}


def test_the_first_of_several_answers_and_an_empty_context(small):
    example = question(CONTEXT, "the tower", "two million")
    features = samples.tokenize([example], "span", small, max_length=384)
    assert read_answers(features, [example]) == [(0, "the tower")]
    for answers in ([], [{"text": "", "start": 0}]):
        empty = {"id": "q", "question": "Who?", "context": "", "answers": answers}
        features = samples.tokenize([empty, example], "span", small, max_length=384)
        assert rows(features)[0] == [CLS, *ids(small, "Who?"), SEP, SEP, SEP]
        assert features.fields["start"][0] == features.fields["end"][0] == 0 and features.fields["start"][1] > 0


def reference_windows(total, room, stride):
    """BERT's loop over document spans."""
    found, start = [], 0
    while True:
        length = min(total - start, room)
        found.append((start, length))
        if start + length == total:
            return found
        start += min(length, stride)


def reference_max_context(windows, token):
    scores = [
        min(token - start, start + length - 1 - token) * 100 + length if start <= token < start + length else -1
        for start, length in windows
    ]
    return scores.index(max(scores))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 12), st.integers(17, 60), st.data())
def test_windows_answers_and_max_context_follow_bert(words, stride, query, max_length, data):
    small = samples.small_tokenizer()
    context = " ".join(" ".join(samples.TEXTS[:4]).split()[:words])
    other = question(CONTEXT, "two million")
    begin = data.draw(st.integers(0, max(0, len(context) - 1)))
    answer = context[begin : begin + data.draw(st.integers(1, 30))]
    example = question(context) | {"answers": [{"text": answer, "start": begin}] if answer.strip() else []}
    options = {"max_length": max_length, "doc_stride": stride, "max_query_length": query}
    features = samples.tokenize([other, example], "span", small, **options)
    mine = np.flatnonzero(features.fields["example"] == 1)
    assert features.fields["example"].tolist() == sorted(features.fields["example"])

    asked = ids(small, example["question"])[:query]
    flat, _, start, end = tokenizer.encode(small, [context], spans=True)
    windows = reference_windows(len(flat), max_length - 4 - len(asked), stride)
    assert [rows(features)[i] for i in mine] == [
        [CLS, *asked, SEP, SEP, *flat[begin : begin + length], SEP] for begin, length in windows
    ]
    touched = [i for i in range(len(flat)) if answer.strip() and end[i] > begin and start[i] < begin + len(answer)]
    for number, (feature, (first, length)) in enumerate(zip(mine, windows, strict=True)):
        shift = len(asked) + 3 - first
        inside = bool(touched) and first <= touched[0] and touched[-1] < first + length
        expected = [touched[0] + shift, touched[-1] + shift] if inside else [0, 0]
        assert [features.fields["start"][feature], features.fields["end"][feature]] == expected
        at = features.offsets[feature] + len(asked) + 3
        np.testing.assert_array_equal(
            features.token_fields["char_start"][at : at + length], start[first : first + length]
        )
        marked = features.token_fields["max_context"][at : at + length]
        assert marked.tolist() == [
            reference_max_context(windows, token) == number for token in range(first, first + length)
        ]


def test_concatenate(small):
    parts = [
        samples.tokenize([pair(text, None, label=i)], "classification", small, max_length=64)
        for i, text in enumerate(samples.TEXTS[:3])
    ]
    whole = concatenate(parts)
    assert rows(whole) == [rows(part)[0] for part in parts] and whole.fields["label"].tolist() == [0, 1, 2]
    unlabelled = samples.tokenize([pair("a", None)], "classification", small, max_length=64)
    assert concatenate([*parts, unlabelled]).fields == {}
    with pytest.raises(InputError):
        concatenate([])


def test_concatenate_counts_examples_on(small):
    one = {"id": "q", "prompt": "the king", "choices": ["a", "b"], "label": 0}
    parts = [samples.tokenize([one] * count, "choice", small, max_length=32) for count in (1, 0, 2)]
    whole = concatenate(parts)
    assert whole.fields["example"].tolist() == [0, 0, 1, 1, 2, 2]
    assert whole.fields["example"].dtype == np.int32


def test_no_examples(small):
    for type in ("classification", "choice", "text", "span", "tagging"):
        features = samples.tokenize([], type, small, max_length=128)
        assert len(features) == 0 and features.tokens.dtype == np.int32


@pytest.mark.parametrize(
    "type, options, message",
    [
        ("taging", {"max_length": 64}, "unknown form 'taging'; did you mean 'tagging'"),
        ("classification", {"max_length": 5}, "max_length 5"),
        ("choice", {"max_length": 5}, "max_length 5"),
        ("tagging", {"max_length": 2}, "max_length 2"),
        ("text", {"max_length": 2}, "max_length 2"),
        ("span", {"max_length": 68}, "max_length 68 leaves no room .* max_query_length 64"),
        ("span", {"max_length": 384, "doc_stride": 0}, "doc_stride"),
    ],
)
def test_refusals(small, type, options, message):
    with pytest.raises(InputError, match=message):
        samples.tokenize([], type, small, **options)


@pytest.mark.parametrize("language", ["ar", "en", "hi", "th", "vi", "zh"])
def test_xquad_answers_survive(corpus, xlmr, language):
    from jxstilts import tasks

    examples = tasks.load("xquad", corpus, "test", language)[:300]
    features = samples.tokenize(examples, "span", xlmr, max_length=384)
    assert set(features.fields["example"]) == set(range(len(examples)))
    exact, answered = 0, set()
    for example, text in read_answers(features, examples):
        gold = examples[example]["answers"][0]["text"]
        assert gold.strip() in text
        answered.add(example)
        exact += text == gold
    # Answers that share a token with the text around them ("1990." in one piece) cannot be exact.
    assert len(answered) >= 0.99 * len(examples) and exact >= 0.93 * len(answered)

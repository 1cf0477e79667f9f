"""Tokenised real examples of each type against the rules said once more, in plain loops over another tokenizer call."""

import csv
import itertools
import json
import unicodedata

import pytest
import samples
from samples import rows

CLS, SEP, UNK = 0, 2, 3
ROWS = 200


def ids(xlmr, text):
    """The library's own call, one text at a time. It takes composed text only (see `tokenizer.compose`)."""
    assert unicodedata.is_normalized("NFC", text)
    return list(xlmr(text, add_special_tokens=False).input_ids)


def composed(*texts):
    return all(unicodedata.is_normalized("NFC", text) for text in texts)


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


# Pairs.


def shortened(a, b, room, front=False):
    """The longer part loses a token, the first part when they are equally long, until both fit."""
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        part = a if len(a) >= len(b) else b
        del part[0 if front else -1]
    return a, b


def pairs_of(path):
    if path.suffix == ".jsonl":
        found = [json.loads(line) for line in lines_of(path)]
        found = [(row["sentence1"], row["sentence2"]) for row in found]
    else:
        found = [line.split("\t")[:2] for line in lines_of(path)]
    return sorted(found, key=lambda pair: -min(map(len, pair)))[:ROWS]  # both long, so that ties happen


@pytest.mark.parametrize(
    "name",
    ["intermediate/mnli/dev.jsonl", "xtreme/pawsx/dev-ja.tsv", "xtreme/xnli/dev-sw.tsv", "xtreme/xnli/dev-th.tsv"],
)
def test_pairs(corpus, xlmr, name):
    pairs = [pair for pair in pairs_of(corpus / name) if composed(*pair)]
    assert len(pairs) > ROWS / 2
    examples = [{"id": str(i), "text_a": a, "text_b": b} for i, (a, b) in enumerate(pairs)]
    ties = 0
    for max_length in (24, 33, 128):
        features = samples.tokenize(examples, "classification", xlmr, max_length=max_length)
        for (a, b), row in zip(pairs, rows(features), strict=True):
            kept_a, kept_b = shortened(ids(xlmr, a), ids(xlmr, b), max_length - 4)
            assert row == [CLS, *kept_a, SEP, SEP, *kept_b, SEP]
            ties += len(kept_a) == len(kept_b) - 1 and len(row) == max_length
    assert ties > 20  # an odd room, shared: the second text has the token more


# Choices.


def hellaswag(corpus):
    for row in map(json.loads, lines_of(corpus / "intermediate/hellaswag/hellaswag_val.jsonl")[:ROWS]):
        yield row["ctx_a"], [f"{row['ctx_b']} {ending}" for ending in row["endings"]], int(row["label"])


def commonsenseqa(corpus):
    for row in map(json.loads, lines_of(corpus / "intermediate/commonsenseqa/dev_rand_split.jsonl")[:ROWS]):
        choices = row["question"]["choices"]
        yield row["question"]["stem"], [c["text"] for c in choices], "ABCDE".index(row["answerKey"])


def cosmosqa(corpus):
    with (corpus / "intermediate/cosmosqa/valid.csv").open(encoding="utf-8", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), ROWS):
            yield f"{row['context']} {row['question']}", [row[f"answer{i}"] for i in range(4)], int(row["label"])


@pytest.mark.parametrize("reader", [hellaswag, commonsenseqa, cosmosqa])
def test_choices(corpus, xlmr, reader):
    questions = [q for q in reader(corpus) if composed(q[0], *q[1])]
    assert len(questions) > ROWS / 2
    examples = [
        {"id": str(i), "prompt": prompt, "choices": choices, "label": label}
        for i, (prompt, choices, label) in enumerate(questions)
    ]
    for max_length in (17, 64, 256):
        features = samples.tokenize(examples, "choice", xlmr, max_length=max_length)
        found, cut = iter(rows(features)), 0
        for prompt, choices, _ in questions:
            for choice in choices:
                a, b = shortened(ids(xlmr, prompt), ids(xlmr, choice), max_length - 4, front=True)
                assert next(found) == [CLS, *a, SEP, SEP, *b, SEP]
                cut += a != ids(xlmr, prompt)
        assert next(found, None) is None
        assert cut or max_length > 17
        assert features.fields["example"].tolist() == [i for i, q in enumerate(questions) for _ in q[1]]
        expected = [int(place == label) for _, choices, label in questions for place in range(len(choices))]
        assert features.fields["label"].tolist() == expected


# Tags.


def sentences_of(path, count):
    found, words = [], []
    for line in [*lines_of(path), ""]:
        if line:
            words.append(line.split("\t"))
        elif words:
            found.append(words)
            words = []
    return found[:count]


def pieces(xlmr, words, room, mode):
    """Returns [(token ids, {place: number of the word that begins there})], one or several for a sentence."""
    limit = min(100, room) if mode == "split" else 100
    found, tokens, begins = [], [], {}
    for number, word in enumerate(words):
        subwords = ids(xlmr, word)
        if len(subwords) == 0 or len(subwords) > limit:
            subwords = [UNK]
        if mode == "split" and len(tokens) + len(subwords) > room:
            found.append((tokens, begins))
            tokens, begins = [], {}
        begins[len(tokens)] = number
        tokens = tokens + subwords
    found.append((tokens[:room], {place: number for place, number in begins.items() if place < room}))
    return found


@pytest.mark.parametrize("mode", ["split", "truncate"])
@pytest.mark.parametrize(
    "name",
    ["udpos/dev-en", "udpos/dev-ja", "udpos/test-th", "udpos/dev-ar", "udpos/dev-vi", "panx/dev-sw", "panx/dev-hi"],
)
def test_tags(corpus, xlmr, name, mode):
    sentences = [s for s in sentences_of(corpus / "xtreme" / f"{name}.tsv", ROWS) if composed(*(w for w, _ in s))]
    assert len(sentences) > ROWS / 4
    labels = tuple(sorted({tag for sentence in sentences for _, tag in sentence}))[:-1]  # one tag is unknown
    examples = [
        {"id": str(i), "words": [word for word, _ in sentence], "tags": [tag for _, tag in sentence]}
        for i, sentence in enumerate(sentences)
    ]
    for max_length in (9, 32, 256):
        features = samples.tokenize(
            examples, "tagging", xlmr, max_length=max_length, labels=labels, long_sentences=mode
        )
        at, number = 0, 0
        for index, example in enumerate(examples):
            for tokens, begins in pieces(xlmr, example["words"], max_length - 2, mode):
                words, tags = [-1] * (len(tokens) + 2), [-1] * (len(tokens) + 2)
                for place, word in begins.items():
                    words[place + 1] = word
                    tag = example["tags"][word]
                    tags[place + 1] = labels.index(tag) if tag in labels else -1
                cells = slice(at, at + len(tokens) + 2)
                assert features.tokens[cells].tolist() == [CLS, *tokens, SEP]
                assert features.token_fields["word"][cells].tolist() == words
                assert features.token_fields["tag"][cells].tolist() == tags
                assert features.fields["example"][number] == index
                at, number = cells.stop, number + 1
                assert features.offsets[number] == at
        assert at == len(features.tokens) and number == len(features)


# Spans.


def questions_of(path, count):
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                if count > 0 and composed(paragraph["context"], question["question"]):
                    count -= 1
                    answers = [{"text": a["text"], "start": a["answer_start"]} for a in question["answers"]]
                    yield {
                        "id": question["id"], "question": question["question"],
                        "context": paragraph["context"], "answers": answers,
                    }  # fmt: skip


def tokens_of(xlmr, text):
    """[(id, first character, character after the last)], the blanks before a word left out."""
    encoded = xlmr(text, add_special_tokens=False, return_offsets_mapping=True)
    found = []
    for token, (begin, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        while begin < end and text[begin].isspace():
            begin += 1
        boundary = xlmr.convert_ids_to_tokens(token) == "▁"
        found.append((token, -1, -1) if boundary or begin >= end else (token, begin, end))
    return found


@pytest.mark.parametrize("language", ["ar", "de", "en", "hi", "ru", "th", "vi", "zh"])
def test_spans(corpus, xlmr, language):
    examples = list(questions_of(corpus / "xtreme" / "xquad" / f"xquad.{language}.json", 60))
    assert len(examples) > 30
    length, stride, query = 96, 33, 20
    options = {"max_length": length, "doc_stride": stride, "max_query_length": query}
    features = samples.tokenize(examples, "span", xlmr, **options)
    number = split = 0
    for index, example in enumerate(examples):
        asked = ids(xlmr, example["question"])[:query]
        context = tokens_of(xlmr, example["context"])
        answer = example["answers"][0]
        first = last = None
        for place, (_, begin, end) in enumerate(context):
            if begin < answer["start"] + len(answer["text"]) and end > answer["start"]:
                first, last = place if first is None else first, place
        room, start, answered = length - 4 - len(asked), 0, 0
        while True:
            window = context[start : start + room]
            cells = slice(features.offsets[number], features.offsets[number + 1])
            assert features.tokens[cells].tolist() == [CLS, *asked, SEP, SEP, *(t[0] for t in window), SEP]
            shift = len(asked) + 3
            fields = [features.token_fields[name][cells].tolist() for name in ("char_start", "char_end")]
            none = [(-1, -1)] * shift
            assert list(zip(*fields, strict=True)) == [*none, *((t[1], t[2]) for t in window), (-1, -1)]
            target = (0, 0)
            if first is not None and start <= first and last < start + len(window):
                target = (first - start + shift, last - start + shift)
                answered += 1
                text = example["context"][fields[0][target[0]] : fields[1][target[1]]]
                assert answer["text"].strip() in text
            assert (features.fields["start"][number], features.fields["end"][number]) == target
            assert features.fields["example"][number] == index
            number += 1
            if start + room >= len(context):
                break
            start += min(stride, room)
            split += 1
        assert answered or last - first >= stride - 1  # an answer longer than what two windows share may be in none
    assert number == len(features) and split > len(examples)

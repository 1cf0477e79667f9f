"""A little text in many scripts, a few plain words, small tokenizers of both and a tiny model: no corpus is needed."""

import dataclasses
import functools
import itertools
import pathlib
import tempfile

TEXTS = (
    "The quick brown fox jumps over the lazy dog while the old king watches from the tower.",
    "In 1889 the tower in Paris was finished, and two million people visited it that year.",
    "Who finished the tower? The engineer finished it with three hundred workers.",
    "Der schnelle braune Fuchs springt über den faulen Hund, während der König zuschaut.",
    "Ha nem érted a kérdést, kérdezd meg újra; a válasz egyszerű és rövid.",
    "Быстрая коричневая лиса прыгает через ленивую собаку, пока король смотрит с башни.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول بينما ينظر الملك من البرج.",
    "השועל החום המהיר קופץ מעל הכלב העצלן.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है और राजा देखता है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ และพระราชาทรงมองดูจากหอคอย",
    "敏捷的棕色狐狸跳过了懒狗,国王从塔上看着。这座塔于1889年在巴黎完工。",
    "素早い茶色の狐がのろまな犬を飛び越える。王様は塔から見ている。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘고 왕은 탑에서 바라본다.",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười, nhà vua nhìn từ tòa tháp.",
    "Mbweha mwepesi wa kahawia anaruka juu ya mbwa mvivu, mfalme anatazama kutoka mnarani.",
    "Hızlı kahverengi tilki tembel köpeğin üzerinden atlar, kral kuleden bakar.",
    "Ọmọ náà ń ṣeré ní ọjà, bàbá rẹ̀ sì ń wò ó.",
)
WORDS = tuple("the a red blue dog cat house runs sleeps near under what where who does is not".split())


@functools.cache
def small_tokenizer(model: str = "bpe", vocab_size: int = 600):
    from jxstilts.data import tokenizer

    return tokenizer.train(TEXTS, vocab_size, model=model, coverage=1.0)


@functools.cache
def word_tokenizer(vocab_size: int = 200):
    """Knows WORDS whole; with a smaller vocabulary some are of several pieces."""
    from jxstilts.data import tokenizer

    return tokenizer.train([" ".join(WORDS)] * 20, vocab_size, model="bpe")


def tiny_bundle(folder: pathlib.Path, tokenizer) -> pathlib.Path:
    """Writes an untrained model with an NLI head "mnli" and a span head "qa", and its tokenizer."""
    import jax

    from jxstilts import tasks
    from jxstilts.data import tokenizer as tokenizers
    from jxstilts.models import bundle
    from jxstilts.models.model import HeadSpec, Model, make_config

    specs = (HeadSpec("mnli", "classification", tasks.get("mnli").labels), HeadSpec("qa", "span"))
    model = Model(make_config("xlmr", "tiny", vocab_size=len(tokenizer)), specs)
    with tempfile.TemporaryDirectory() as saved:
        files = pathlib.Path(saved)
        tokenizers.save(tokenizer, files)
        bundle.save(folder, model, jax.jit(model.init)(jax.random.key(0)), tokenizer_files=files)
    return folder


def template():
    """The one by which texts become XLM-R's inputs."""
    from jxstilts.models.model import family_module

    return family_module("xlmr").TEMPLATE


def tokenize(examples, form: str, tokenizer, **options):
    """The features of examples, as XLM-R takes them; options: those of the `Reading`, and what a form takes beside."""
    from jxstilts import forms

    names = {field.name for field in dataclasses.fields(forms.Reading)}
    reading = {"long_sentences": "split"} | {key: value for key, value in options.items() if key in names}
    more = {key: value for key, value in options.items() if key not in names}
    return forms.get(form).tokenize(examples, tokenizer, template(), forms.Reading(**reading), **more)


def as_batch(form: str, labelled: bool = True) -> dict:
    """Options of `batching.assemble_plans`: the fields of a form's batches for XLM-R, and its pad_id."""
    from jxstilts import forms

    return {"fields": forms.get(form).batch_fields(template(), labelled), "pad_id": 1}


def ids(tokenizer, text: str) -> list[int]:
    """The text's pieces, without special tokens."""
    from jxstilts.data import tokenizer as tokenizers

    return tokenizers.encode(tokenizer, [text])[0].tolist()


def rows(features) -> list[list[int]]:
    """The tokens of each feature."""
    return [features.tokens[a:b].tolist() for a, b in itertools.pairwise(features.offsets)]


def random_params(model):
    """Parameters of a model's shapes, without compiling its `init`."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), model.abstract()[0])


def flax_names(tensors: dict) -> dict:
    """{torch name: array} -> {name of transformers' Flax model, its parts joined by "/": array}."""
    found = {}
    for name, array in tensors.items():
        place, _, last = name.replace(".", "/").rpartition("/")
        if last == "weight":
            kind = place.rpartition("/")[2]
            embedded = kind.endswith("embeddings") or kind in ("shared", "relative_attention_bias")  # the latter: T5's
            last = "embedding" if embedded else "scale" if "norm" in kind.lower() else "kernel"
        found[f"{place}/{last}"] = array.T if last == "kernel" else array
    return found


def write_flax(file: pathlib.Path, tensors: dict) -> None:
    """Writes what transformers' Flax models save: `flax.serialization` of nested dictionaries."""
    from flax import serialization, traverse_util

    file.write_bytes(serialization.to_bytes(traverse_util.unflatten_dict(flax_names(tensors), sep="/")))

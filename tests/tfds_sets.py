"""Small data sets prepared by TFDS with the feature structures of the real ones, which need a download."""

import numpy as np
import pytest

from jxstilts import tasks

tfds = pytest.importorskip("tensorflow_datasets")

XNLI_LANGUAGES = sorted(tasks.get("xnli").languages)
NLI_NAMES = ["entailment", "neutral", "contradiction"]  # TFDS's order, which is not ours


def xnli_features():
    return tfds.features.FeaturesDict(
        {
            "premise": tfds.features.Translation(languages=XNLI_LANGUAGES),
            "hypothesis": tfds.features.TranslationVariableLanguages(languages=XNLI_LANGUAGES),
            "label": tfds.features.ClassLabel(names=NLI_NAMES),
        }
    )


def mnli_features(with_index):
    features = {
        "premise": tfds.features.Text(),
        "hypothesis": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=NLI_NAMES),
    }
    return tfds.features.FeaturesDict(features | ({"idx": np.int32} if with_index else {}))


def squad_features():
    return tfds.features.FeaturesDict(
        {
            "id": np.str_,
            "title": tfds.features.Text(),
            "context": tfds.features.Text(),
            "question": tfds.features.Text(),
            "answers": tfds.features.Sequence({"text": tfds.features.Text(), "answer_start": np.int32}),
        }
    )


def squad_v2_features():
    answers = {"text": tfds.features.Text(), "answer_start": np.int32}
    return tfds.features.FeaturesDict(
        {
            "id": np.str_,
            "title": tfds.features.Text(),
            "context": tfds.features.Text(),
            "plausible_answers": tfds.features.Sequence(answers),
            "question": tfds.features.Text(),
            "is_impossible": np.bool_,
            "answers": tfds.features.Sequence(answers),
        }
    )


def anli_features():
    texts = {key: tfds.features.Text() for key in ("uid", "context", "hypothesis")}
    return tfds.features.FeaturesDict(texts | {"label": tfds.features.ClassLabel(names=["e", "n", "c"])})


def pair_features(first, second, names, **more):
    texts = {key: tfds.features.Text() for key in (first, second)}
    return tfds.features.FeaturesDict(texts | {"label": tfds.features.ClassLabel(names=names)} | more)


def snli_features():
    return pair_features("premise", "hypothesis", NLI_NAMES)


def qqp_features():
    return pair_features("question1", "question2", ["not_duplicate", "duplicate"], idx=np.int32)


def pawsx_features():
    return pair_features("sentence1", "sentence2", ["different_meaning", "paraphrase"])


def hellaswag_features():
    texts = {key: tfds.features.Text() for key in ("context", "activity_label", "split_type", "source_id")}
    more = {"endings": tfds.features.Sequence(tfds.features.Text()), "label": np.int32}
    return tfds.features.FeaturesDict(texts | more)


def cosmosqa_features():
    keys = ("context", "question", "answer0", "answer1", "answer2", "answer3", "id")
    label = tfds.features.ClassLabel(names=["0", "1", "2", "3"])
    return tfds.features.FeaturesDict({key: tfds.features.Text() for key in keys} | {"label": label})


def udpos_features():
    tags = tfds.features.ClassLabel(names=[*tasks.get("udpos").labels, "_"])
    return tfds.features.FeaturesDict(
        {"tokens": tfds.features.Sequence(tfds.features.Text()), "upos": tfds.features.Sequence(tags)}
    )


def panx_features():
    tags = tfds.features.ClassLabel(names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"])
    texts = {key: tfds.features.Sequence(tfds.features.Text()) for key in ("tokens", "langs", "spans")}
    return tfds.features.FeaturesDict(texts | {"tags": tfds.features.Sequence(tags)})


def tatoeba_features():
    names = ("source_sentence", "target_sentence", "source_language", "target_language")
    return tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})


FEATURES = {
    "anli": anli_features,
    "cosmos_qa": cosmosqa_features,
    "glue/mnli": lambda: mnli_features(with_index=True),
    "glue/qqp": qqp_features,
    "hellaswag": hellaswag_features,
    "mlqa": squad_features,
    "multi_nli": lambda: mnli_features(with_index=False),
    "paws_x_wiki": pawsx_features,
    "snli": snli_features,
    "squad/v1.1": squad_features,
    "squad/v2.0": squad_v2_features,
    "tatoeba": tatoeba_features,
    "tydi_qa": squad_features,
    "wikiann": panx_features,
    "xnli": xnli_features,
    "xquad": squad_features,
    "xtreme_pos": udpos_features,
}


def features(data_set):
    """The features of `data_set` (name or name/config)."""
    return FEATURES[data_set if data_set in FEATURES else data_set.partition("/")[0]]()


def prepare(root, data_set, splits):
    """Prepares `data_set` (name or name/config) under root from {split: rows}, as TFDS would from a download."""
    name, _, config = data_set.partition("/")

    class Local(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features(data_set))

        def _split_generators(self, manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Local.name = name
    if config:
        Local.BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)]
    Local(data_dir=root).download_and_prepare(file_format="array_record")

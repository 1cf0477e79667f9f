"""Honest tasks: what can be had without reading, from one side of a pair, from choices alone, from positions."""

import pytest

from jxstilts import tasks
from jxstilts.miniworld import controls, languages, nli
from jxstilts.miniworld.concepts import GIVEN, PLACE_NAMES
from jxstilts.miniworld.setting import setting


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return controls.measure(train=2_000, test=1_500)


@pytest.mark.parametrize("task", ["mnli", "snli", "anli R1", "anli R2", "anli R3"])
def test_one_side_of_an_inference_says_nothing(task, measured):
    assert measured[f"{task}: second only"] == pytest.approx(100 / 3, abs=5)  # the hypothesis
    assert measured[f"{task}: first only"] == pytest.approx(100 / 3, abs=5)
    assert measured[f"{task}: both"] < 40


@pytest.mark.parametrize("task", ["qqp", "pawsx"])
def test_one_side_of_a_paraphrase_says_nothing(task, measured):
    assert measured[f"{task}: first only"] == pytest.approx(50, abs=5)
    assert measured[f"{task}: second only"] == pytest.approx(50, abs=5)
    assert measured[f"{task}: both"] < 57


def test_pawsx_is_not_in_the_words(measured):
    assert measured["pawsx: difference"] < 75


@pytest.mark.parametrize(("task", "chance"), [("hellaswag", 25), ("cosmosqa", 25), ("commonsenseqa", 20)])
def test_choices_alone_do_not_tell(task, chance, measured):
    for control in ("choices only", "longest choice", "shortest choice"):
        assert measured[f"{task}: {control}"] == pytest.approx(chance, abs=5)


def test_answers_stand_anywhere(measured):
    assert measured["squad: commonest place"] < 10
    for control in ("first", "last"):
        assert measured[f"squad: in the {control} event"] < measured["squad: in an event picked blindly"] + 5
    assert measured["squad_v2: question only"] == pytest.approx(50, abs=5)


def test_the_classifier_learns_what_there_is():
    bags, labels = [["a", "b"], ["b"], ["a"], ["c"]] * 5, [1, 0, 1, 0] * 5
    assert controls.accuracy((bags, labels), ([*bags, ["unseen"]], [*labels, 0])) == 100


def _text(row):
    """All that an example says, without its gold."""
    parts = (row.get(key, ()) for key in ("text_a", "text_b", "prompt", "context", "question"))
    return " ".join([*filter(None, parts), *row.get("choices", ()), *row.get("words", ())])


TASKS = [
    "mnli",
    "snli",
    "anli",
    "qqp",
    "squad_v1",
    "squad_v2",
    "hellaswag",
    "cosmosqa",
    "commonsenseqa",
    "ccg",
    "udpos",
]


@pytest.mark.parametrize("task", TASKS)
def test_names_and_sentences_of_training_and_dev_differ(task, world):
    names = {*GIVEN, *PLACE_NAMES}
    train, dev = ([_text(row) for row in tasks.load(task, world, split)] for split in ("train", "dev"))
    seen, unseen = ({word for row in part for word in row.split()} & names for part in (train, dev))
    assert seen and unseen and not seen & unseen
    assert not set(train) & set(dev) or task in ("ccg", "udpos", "panx")  # short sentences may come again
    assert len(set(train) & set(dev)) < len(dev) / 10


@pytest.mark.parametrize("task", ["xnli", "mnli", "snli", "anli", "qqp", "pawsx"])
def test_labels_are_balanced(task, world):
    for split in tasks.get(task).splits:
        labels = [row["label"] for row in tasks.load(task, world, split)]
        counts = [labels.count(label) for label in set(labels)]
        assert len(counts) == len(tasks.get(task).labels) and max(counts) - min(counts) <= 3


def test_labels_follow_from_the_scenes():
    given = setting(0, languages.vary(()), "tiny")
    stream, names = given.stream("check"), given.world.train_names
    for label in nli.LABELS * 100:
        pair = nli.pair(given.world, stream, names, label)
        premise, hypothesis = (_said(frame) for frame in (pair.premise[0], pair.hypothesis))
        assert pair.premise[0].core == hypothesis["core"]
        new = [key for key in hypothesis if key not in premise]
        wrong = [key for key in hypothesis if key in premise and hypothesis[key] != premise[key]]
        assert (bool(new), len(wrong)) == {
            "neutral": (True, 0), "entailment": (False, 0), "contradiction": (False, 1),
        }[label]  # fmt: skip


def _said(frame):
    values = {"core": frame.core, "number": frame.object.number, "negative": frame.negative}
    values |= {"quality": frame.object.quality, "colour": frame.object.colour}
    values |= {"place": frame.place, "time": frame.time}
    return {key: value for key, value in values.items() if value is not None}

"""What can be had without reading: bag-of-words classifiers on parts of the examples, as controls.

`python -m jxstilts.miniworld.controls` prints them for English, trained and tested on fresh draws with different names.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from jxstilts.miniworld import choice, languages, nli, pairs, qa
from jxstilts.miniworld.grammar import text
from jxstilts.miniworld.setting import Setting, balanced, setting

Bags = Sequence[Sequence[str]]


def softmax_regression(
    train: Bags, labels: Sequence[int], test: Bags, *, steps: int = 200, rate: float = 0.5, decay: float = 1e-4
) -> np.ndarray:
    """Trains a linear classifier on bags of features by gradient descent.

    Returns scores float32 [test bags, C]. Features that no training bag holds are left out.
    """
    columns = {feature: i for i, feature in enumerate(dict.fromkeys(feature for bag in train for feature in bag))}

    def matrix(bags):
        table = np.zeros((len(bags), len(columns) + 1), np.float32)
        table[:, -1] = 1
        for row, bag in enumerate(bags):
            for feature in bag:
                if feature in columns:
                    table[row, columns[feature]] = 1
        return table

    inputs, gold = matrix(train), np.eye(max(labels) + 1, dtype=np.float32)[np.asarray(labels)]
    weights = np.zeros((inputs.shape[1], gold.shape[1]), np.float32)
    speed = np.zeros_like(weights)
    for _ in range(steps):
        scores = inputs @ weights
        scores = np.exp(scores - scores.max(1, keepdims=True))
        error = scores / scores.sum(1, keepdims=True) - gold
        speed = 0.9 * speed - rate * (inputs.T @ error / np.float32(len(inputs)) + decay * weights)
        weights += speed
    return matrix(test) @ weights


def accuracy(train: tuple[Bags, Sequence[int]], test: tuple[Bags, Sequence[int]]) -> float:
    """Returns the share in per cent of test bags that a linear classifier labels right."""
    scores = softmax_regression(*train, test[0])
    return 100 * float(np.mean(scores.argmax(1) == np.asarray(test[1])))


def choice_accuracy(train: Sequence[choice.Item], test: Sequence[choice.Item]) -> float:
    """Returns the share in per cent of questions answered right by a linear scorer that sees single choices only."""
    bags = [one.split() for item in train for one in item.choices]
    right = [int(i == item.label) for item in train for i in range(len(item.choices))]
    scores = softmax_regression(bags, right, [one.split() for item in test for one in item.choices])
    table = (scores[:, 1] - scores[:, 0]).reshape(len(test), -1)
    return 100 * float(np.mean(table.argmax(1) == [item.label for item in test]))


def measure(seed: int = 0, train: int = 9_000, test: int = 3_000) -> dict[str, float]:
    """Returns control -> accuracy in per cent, in English. train, test: numbers of examples."""
    given = setting(seed, languages.vary([]), "tiny")
    found = {}

    parts = (("train", train), ("test", test))

    def draw(task: str, make: Callable, labels: Sequence) -> tuple[list, list]:
        drawn = []
        for split, count in parts:
            stream, names = given.stream("controls", task, split), given.world.names(split)
            order = balanced(stream, labels, count)
            drawn.append([(make(stream, names, label), labels.index(label)) for label in order])
        return drawn[0], drawn[1]

    def pair_controls(task: str, drawn: tuple[list, list]) -> None:
        views = {
            "first only": lambda a, b: a.split(),
            "second only": lambda a, b: b.split(),
            "both": lambda a, b: [*("a " + word for word in a.split()), *("b " + word for word in b.split())],
            "difference": lambda a, b: _difference(a.split(), b.split()),
        }
        for name, view in views.items():
            parts = [([view(*texts) for texts, _ in part], [label for _, label in part]) for part in drawn]
            found[f"{task}: {name}"] = accuracy(*parts)

    world, english = given.world, given.english
    pair_controls("mnli", draw("mnli", lambda *key: nli.pair(world, *key).texts(english), nli.LABELS))
    pair_controls("snli", draw("snli", lambda *key: nli.pair(world, *key, True).texts(english), nli.LABELS))
    for level in (1, 2, 3):
        drawn = draw(f"anli {level}", lambda *k, n=level: nli.adversarial(world, *k, n).texts(english), nli.LABELS)
        pair_controls(f"anli R{level}", drawn)
    pair_controls("qqp", draw("qqp", lambda *key: pairs.question_pair(world, *key, english), (0, 1)))

    def statements(*key):
        frames, marked = pairs.statement_pair(world, *key)
        return [text(english.statement(frame, marked=i == marked)) for i, frame in enumerate(frames)]

    pair_controls("pawsx", draw("pawsx", statements, (0, 1)))
    makers = {"hellaswag": choice.continuation, "cosmosqa": choice.comprehension, "commonsenseqa": choice.knowledge}
    for task, make in makers.items():
        labels = range(5 if task == "commonsenseqa" else 4)
        drawn = draw(task, lambda *key, make=make: make(world, *key, english), labels)
        items = [[item for item, _ in part] for part in drawn]
        found[f"{task}: choices only"] = choice_accuracy(*items)
        for name, pick in (("longest choice", max), ("shortest choice", min)):
            right = [_length_guess(item, pick) for item in items[1]]
            found[f"{task}: {name}"] = 100 * float(np.mean(right))
    found["squad_v2: question only"] = accuracy(*(_answerable(given, split, n) for split, n in parts))
    found |= _answers(given, test)
    return found


def _answerable(given, split, count):
    """Questions of SQuAD v2 as bags of words, as many with an answer as without, and which they are."""
    stream, bags, labels = given.stream("controls", "squad_v2", split), [], []
    while len(bags) < count:
        passage = qa.passage(given.world, stream, given.world.names(split), impossible=True)
        paragraph = passage.paragraph(given.english, given.english, "x", version2=True)
        # one of the two that have an answer, and the one that has none
        for impossible in (False, True):
            entry = next(one for one in paragraph["qas"] if one["is_impossible"] == impossible)
            bags.append(entry["question"].split())
            labels.append(int(impossible))
    return bags, labels


def _difference(a, b):
    """Words of one text that the other lacks, whichever they are, and how many: what comparing bags can see."""
    extra, lacking = [word for word in b if word not in a], [word for word in a if word not in b]
    return [*("+" + word for word in extra), *("-" + word for word in lacking), f"+{len(extra)}", f"-{len(lacking)}"]


def _length_guess(item, pick):
    """The chance of being right for one who picks a longest (shortest) choice."""
    lengths = [len(one.split()) for one in item.choices]
    ends = [i for i, length in enumerate(lengths) if length == pick(lengths)]
    return (item.label in ends) / len(ends)


def _answers(given: Setting, count: int) -> dict[str, float]:
    """Where answers stand: the share of the commonest place (in words), and of the first and last event."""
    stream, places, first, last, events = given.stream("controls", "answers"), [], 0, 0, 0
    for _ in range(count // 2):
        passage = qa.passage(given.world, stream, given.world.test_names)
        paragraph = passage.paragraph(given.english, given.english, "x")
        for question, entry in zip(passage.questions, paragraph["qas"], strict=True):
            start = entry["answers"][0]["answer_start"]
            places.append(len(paragraph["context"][:start].split()))
            first += question.place == 0
            last += question.place == len(passage.events) - 1
            events += 1 / len(passage.events)
    return {
        "squad: commonest place": 100 * max(map(places.count, set(places))) / len(places),
        "squad: in the first event": 100 * first / len(places),
        "squad: in the last event": 100 * last / len(places),
        "squad: in an event picked blindly": 100 * events / len(places),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="bag-of-words controls of the miniature world, in English")
    parser.add_argument("--seed", type=int, default=0)
    for name, value in measure(parser.parse_args().seed).items():
        print(f"{name:<36}{value:6.1f}")


if __name__ == "__main__":
    main()

"""Answers out of the start and end scores of a question's windows (BERT's SQuAD code)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Windows = Mapping[int, tuple[int, np.ndarray, Mapping[str, np.ndarray]]]


def window_candidates(
    logits: np.ndarray, char_start: np.ndarray, max_context: np.ndarray, n_best: int = 20, max_answer_length: int = 30
) -> tuple[float, int, int] | None:
    """Returns the best (score, first token, last token) of one window, or None if there is no valid span.

    Args:
        logits: [T, 2] start and end scores of the window's tokens.
        char_start: [T] offset of each token in the context, -1 where a token may not be part of an answer.
        max_context: [T] bool, is this the window in which the token has most context? Spans start only there.
        max_answer_length: in tokens.
    """
    scores, starts, ends = _spans(logits, char_start, max_context, n_best, max_answer_length)
    if not scores.size or not np.isfinite(scores.max()):
        return None
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[i, j]), int(starts[i]), int(ends[j])


def _spans(logits, char_start, max_context, n_best, max_answer_length) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores [starts, ends] of the best tokens to start and to end with, -inf for what is no answer."""
    allowed = char_start >= 0
    starts = _best(np.where(allowed & max_context, logits[:, 0], -np.inf), n_best)
    ends = _best(np.where(allowed, logits[:, 1], -np.inf), n_best)
    length = ends[None, :] - starts[:, None] + 1
    scores = logits[starts, 0][:, None] + logits[ends, 1][None, :]
    return np.where((length >= 1) & (length <= max_answer_length), scores, -np.inf), starts, ends


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest finite scores, best first; equal scores in order of position."""
    order = np.argsort(-scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]


def decode(
    examples: Sequence[Mapping],
    windows: Windows,
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_scores: bool = False,
) -> dict[str, Any]:
    """Returns {example id: answer text}; the empty string where no window holds a valid span.

    Args:
        windows: feature index -> (example index, logits [T, 2], {"char_start", "char_end", "max_context"} [T]).
        null_scores: return {example id: {"text": the same, "no_answer": how much better it scores to give none}}.
            The null score is the least over the question's windows of the start and end score of their first token,
            `<s>`; where there is no valid span, so that nothing can be given anyway, it stands alone.
    The text is cut out of the original context by character offsets, so no detokenisation takes place.
    """
    best: dict[int, tuple[float, int, int]] = {}
    null: dict[int, float] = {}
    for feature in sorted(windows):
        example, logits, fields = windows[feature]
        none = float(logits[0, 0]) + float(logits[0, 1])
        null[example] = min(none, null.get(example, none))
        found = window_candidates(logits, fields["char_start"], fields["max_context"], n_best, max_answer_length)
        if found and (example not in best or found[0] > best[example][0]):
            score, first, last = found
            best[example] = (score, int(fields["char_start"][first]), int(fields["char_end"][last]))
    answers: dict[str, Any] = {}
    for index, example in enumerate(examples):
        score, begin, end = best.get(index, (0.0, 0, 0))
        text = example["context"][begin:end].strip()
        answers[example["id"]] = {"text": text, "no_answer": null.get(index, 0.0) - score} if null_scores else text
    return answers


def ranked(
    examples: Sequence[Mapping], windows: Windows, n_best: int = 20, max_answer_length: int = 30
) -> list[tuple[list[dict[str, Any]], float]]:
    """Returns ([{"text", "score", "start", "end"}, ...], null score) of each example; arguments as of `decode`.

    At most n_best answers, the best first, of each text the best; start and end are characters of the context.
    """
    found: list[list[tuple[float, int, int]]] = [[] for _ in examples]
    null = [np.inf] * len(examples)
    for feature in sorted(windows):
        example, logits, fields = windows[feature]
        null[example] = min(null[example], float(logits[0, 0]) + float(logits[0, 1]))
        scores, starts, ends = _spans(logits, fields["char_start"], fields["max_context"], n_best, max_answer_length)
        begins, stops = fields["char_start"][starts], fields["char_end"][ends]
        found[example] += [
            (float(scores[i, j]), int(begins[i]), int(stops[j])) for i, j in np.argwhere(np.isfinite(scores)).tolist()
        ]
    answers = []
    for example, spans, none in zip(examples, found, null, strict=True):
        best: dict[str, dict[str, Any]] = {}
        for score, begin, end in sorted(spans, key=lambda span: -span[0]):
            text = example["context"][begin:end]
            begin += len(text) - len(text.lstrip())
            text = text.strip()
            if len(best) < n_best:
                best.setdefault(text, {"text": text, "score": score, "start": begin, "end": begin + len(text)})
        answers.append((list(best.values()), none))
    return answers

"""From start and end scores of windows to one answer per question (SQuAD; protocol 3.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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
    allowed = char_start >= 0
    starts = _best(np.where(allowed & max_context, logits[:, 0], -np.inf), n_best)
    ends = _best(np.where(allowed, logits[:, 1], -np.inf), n_best)
    length = ends[None, :] - starts[:, None] + 1
    scores = logits[starts, 0][:, None] + logits[ends, 1][None, :]
    scores = np.where((length >= 1) & (length <= max_answer_length), scores, -np.inf)
    if not scores.size or not np.isfinite(scores.max()):
        return None
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[i, j]), int(starts[i]), int(ends[j])


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest finite scores, best first; equal scores in order of position."""
    order = np.argsort(-scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]


def decode(
    examples: Sequence[Mapping],
    windows: Mapping[int, tuple[int, np.ndarray, Mapping[str, np.ndarray]]],
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

"""Saying a text token by token, greedily or with several beams side by side. Static shapes; it ends when all rows do.

The model is a function `step(tokens [R], place, kept) -> (logits [R, V] float32, kept)` of the tokens before a place of
each row; what is kept of those before them is its own matter. Results are those of Hugging Face's `generate`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Step = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
NEVER = -1.0e9  # the score of what may not be chosen
BLOCK, SMALLEST = 512, 16  # words that are compared together


def greedy(step: Step, kept: Any, rows: int, length: int, ends: tuple[int, int]) -> jax.Array:
    """Returns the likeliest token after each, int32 [rows, length]; after the end, padding.

    ends: the ids of the padding token, which begins a text and is not a part of it, and of the end-of-text token.
    """
    pad, end = ends

    def going_on(state):
        place, _, done, _ = state
        return (place < length) & ~done.all()

    def one(state):
        place, said, done, kept = state
        before = jnp.where(place == 0, pad, said[:, jnp.maximum(place - 1, 0)])
        logits, kept = step(before, place, kept)
        token = jnp.where(done, pad, largest(logits, 1)[1][:, 0])
        return place + 1, said.at[:, place].set(token), done | (token == end), kept

    start = (jnp.int32(0), jnp.full((rows, length), pad, jnp.int32), jnp.zeros(rows, bool), kept)
    return jax.lax.while_loop(going_on, one, start)[1]


class Beams(NamedTuple):
    """K texts of each of B rows that go on, and the K best that have ended; scores are log probabilities.

    An ended text's score is divided by its length to the power of the penalty. better: may a text that goes on still
    become one of the best [B]? going: can any?
    """

    place: jax.Array
    said: jax.Array  # [B, K, U]
    scores: jax.Array  # [B, K]
    ended: jax.Array  # [B, K, U]
    ended_scores: jax.Array
    is_ended: jax.Array
    better: jax.Array
    going: jax.Array
    kept: Any


def beam_search(
    step: Step, kept: Any, shape: tuple[int, int, int], ends: tuple[int, int], penalty: float, reorder: Callable
) -> jax.Array:
    """Returns the best text that `shape[1]` beams find for each row, int32 [rows, length]; after the end, padding.

    Args:
        step, kept: of rows * beams texts, those of a row one after the other.
        shape: rows, beams, length.
        ends: see `greedy`.
        reorder: (kept, int [rows * beams]) -> what is kept of those texts.
    """
    (rows, beams, length), (pad, end) = shape, ends
    offset = jnp.arange(rows)[:, None] * beams

    def one(state: Beams) -> Beams:
        before = jnp.where(state.place == 0, pad, state.said[:, :, jnp.maximum(state.place - 1, 0)])
        logits, kept = step(before.reshape(-1), state.place, state.kept)
        # twice as many as beams go on to choose from: were all the best at their end, so many others are left
        scores, origin, token = _best(logits.reshape(rows, beams, -1), state.scores, 2 * beams)
        said = jnp.take_along_axis(state.said, origin[:, :, None], axis=1).at[:, :, state.place].set(token)
        at_end = (token == end) | (state.place + 1 == length)
        scores_on = scores + at_end * NEVER
        chosen = jax.lax.top_k(scores_on, beams)[1]
        running = jnp.take_along_axis(scores_on, chosen, axis=1)
        place = state.place + 1

        just = at_end & (jnp.arange(2 * beams) < beams)
        scores = scores / place.astype(jnp.float32) ** penalty + ~state.better[:, None] * NEVER + ~just * NEVER
        every = jnp.concatenate([state.ended_scores, scores], axis=1)
        best = jax.lax.top_k(every, beams)[1]
        ended_scores = jnp.take_along_axis(every, best, axis=1)
        is_ended = jnp.take_along_axis(jnp.concatenate([state.is_ended, just], axis=1), best, axis=1)
        ended = jnp.take_along_axis(jnp.concatenate([state.ended, said], axis=1), best[:, :, None], axis=1)

        hoped = running[:, :1] / place.astype(jnp.float32) ** penalty
        worst = jnp.where(is_ended, ended_scores.min(1, keepdims=True), NEVER)
        better = state.better & (hoped > worst).any(1)
        origin = jnp.take_along_axis(origin, chosen, axis=1)
        kept = reorder(kept, (origin + offset).reshape(-1))
        said = jnp.take_along_axis(said, chosen[:, :, None], axis=1)
        going = better.any() & ~at_end.all()
        return Beams(place, said, running, ended, ended_scores, is_ended, better, going, kept)

    texts = jnp.full((rows, beams, length), pad, jnp.int32)
    first = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER) + jnp.zeros((rows, 1))  # all beams begin the same: one counts
    none = jnp.full((rows, beams), NEVER)
    start = Beams(
        jnp.int32(0),
        texts,
        first,
        texts,
        none,
        jnp.zeros((rows, beams), bool),
        jnp.ones(rows, bool),
        jnp.array(True),
        kept,
    )
    best = jax.lax.while_loop(lambda state: state.going, one, start).ended[:, 0]
    after = jnp.cumsum(best == end, axis=1) - (best == end) > 0
    return jnp.where(after, pad, best)


def _best(logits: jax.Array, scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """logits [B, K, V], scores [B, K] -> the best continuations: their scores, beams and tokens, [B, count] each."""
    found, token = largest(logits, count)  # of each beam: no more of it can be among the best
    found = found - jax.nn.logsumexp(logits, axis=-1, keepdims=True) + scores[:, :, None]
    best, place = jax.lax.top_k(found.reshape(len(found), -1), count)
    return best, place // count, jnp.take_along_axis(token.reshape(len(token), -1), place, axis=1)


def largest(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """logits [..., V] -> the largest and their places, int32 [..., count] each: `top_k` of a large vocabulary.

    They lie in the `count` blocks with the largest maxima. A maximum of a block is found at the speed of memory, which
    on a CPU is 25 times that of an argmax. Where V has no factor for a block, all is searched.
    """
    block = math.gcd(logits.shape[-1], BLOCK)
    blocks = logits.shape[-1] // block
    if block < SMALLEST or blocks <= count:
        found, place = jax.lax.top_k(logits, count)
        return found, place.astype(jnp.int32)
    parts = logits.reshape(*logits.shape[:-1], blocks, block)
    chosen = jnp.sort(jax.lax.top_k(parts.max(-1), count)[1], axis=-1)  # in order, so that of equal ones the first wins
    own = jnp.take_along_axis(parts, chosen[..., None], axis=-2)
    found, place = jax.lax.top_k(own.reshape(*own.shape[:-2], count * block), count)
    where = jnp.take_along_axis(chosen, place // block, axis=-1) * block + place % block
    return found, where.astype(jnp.int32)

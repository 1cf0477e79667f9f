"""Span corruption (Raffel et al. 2020, 3.1.4; T5's preprocessors.span_corruption): a decoder says what was taken out.

Of a row's text a share is cut out in spans. Each span leaves a sentinel in the input, another one each time, from the
last id of the vocabulary down; the target is each sentinel and what it stands for, and the end of the text.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jxstilts.config import setting
from jxstilts.runtime import InputError
from jxstilts.train.objectives import task

SENTINEL = "<extra_id_{}>"
SENTINELS = 100  # of T5's and mT5's vocabularies


@dataclasses.dataclass(frozen=True)
class Objective(task.Objective):
    """Trains a head of type text_to_text."""

    HEAD = "text_to_text"
    WHOLE_VOCABULARY = True  # sentinels in the input, and a logit for each
    head: str = setting("text_to_text", "the name of its head")
    rate: float = setting(0.15, "share of the tokens that is cut out, between 0 and 1")
    mean: float = setting(3.0, "tokens of a span that is cut out, in the mean", least=1)
    sentinels: bool = setting(
        True,
        "whether targets have sentinels; without them, text that is mixed in keeps a model that learns a task in "
        "English from answering in English (mT5, 2021, section 6: at 1:100)",
    )

    def __post_init__(self):
        if not 0 < self.rate < 1 or self.mean < 1:
            raise InputError(f"span corruption: rate={self.rate} is between 0 and 1, mean={self.mean} at least 1")

    @classmethod
    def check(cls, tokenizer, where):
        first = tokenizer.backend_tokenizer.token_to_id(SENTINEL.format(0))
        if first is None or first != len(tokenizer) - 1:
            raise InputError(
                f"{where}: span corruption needs sentinels, {SENTINEL.format(0)} as the last id of the vocabulary and "
                f"others before it, and this tokenizer's is {first}; one that is trained here gets them from "
                f"config.tokenizer.sentinels={SENTINELS}"
            )

    def prepare(self, batch, rng, context):
        """tokens [B, T] -> the corrupted text in their place, and targets [B, U]; see `corrupt`.

        A row is one text, whatever was put together in it (T5's merge_examples); its last token is the end.
        """
        tokens, length = batch["tokens"], (batch["segments"] > 0).sum(1)
        rows, longest = tokens.shape
        spans = _counts(longest - 1, self.rate, self.mean)[1]
        if spans > SENTINELS:
            raise InputError(f"span corruption: rows of {longest} tokens have {spans} spans, more than {SENTINELS}")
        keys = jax.random.split(rng, rows)
        noise = jax.vmap(lambda key, count: noise_mask(key, count, longest, self.rate, self.mean))(keys, length - 1)
        last = jnp.take_along_axis(tokens, jnp.maximum(length - 1, 0)[:, None], axis=1)
        given = (tokens, length, noise, last, context.vocab_size - 1)
        inputs, segments = corrupt(*given, longest)
        room = sum(_counts(longest - 1, self.rate, self.mean)) + 1
        targets, targets_segments = corrupt(*(given[:2]), ~noise, *given[3:], room, sentinels=self.sentinels)
        positions = jnp.arange(longest, dtype=jnp.int32)[None] * segments
        return {
            **batch, "tokens": inputs, "segments": segments, "positions": positions, "targets": targets,
            "targets_segments": targets_segments * noise.any(1, keepdims=True),  # of a text that lost nothing: none
        }  # fmt: skip


def _counts(length, rate, mean):
    """Returns (tokens that are cut out, spans) of a text of `length` tokens: ints, or arrays; in float32, as in T5."""
    library = np if isinstance(length, int) else jnp
    wanted = library.round(library.float32(length) * library.float32(rate))
    noise = library.clip(wanted, 1, library.maximum(length - 1, 1)).astype(np.int32)
    spans = library.maximum(library.round(noise.astype(np.float32) / library.float32(mean)), 1).astype(np.int32)
    return (int(noise), int(spans)) if library is np else (noise, spans)


def noise_mask(key: jax.Array, length: jax.Array, longest: int, rate: float, mean: float) -> jax.Array:
    """Returns bool [longest]: which of the first `length` tokens are cut out (T5's random_spans_noise_mask).

    Both what is cut out and what stays are cut at random places into as many spans, none empty, which take turns; what
    stays begins. A text of fewer than two tokens stays.
    """
    noise, spans = _counts(length, rate, mean)
    place = jnp.arange(longest)

    def spans_of(key, items):
        """-> the span of each of the items, from 0: a new one begins at spans - 1 of the places after the first"""
        order = jnp.where((place > 0) & (place < items), jax.random.uniform(key, (longest,)), jnp.inf)
        rank = jnp.argsort(jnp.argsort(order))
        return jnp.cumsum((rank < spans - 1) & (place > 0))

    first, second = jax.random.split(key)
    count = math.ceil(longest / 2) + 1  # of spans, at most
    sizes = []
    for own, items in ((first, length - noise), (second, noise)):
        member = (spans_of(own, items)[:, None] == jnp.arange(count)) & (place < items)[:, None]
        sizes.append(member.sum(0))
    stays, goes = sizes
    ends = jnp.cumsum(stays + goes)
    begins = ends - goes
    real = goes > 0
    edges = jnp.zeros(longest + 1, jnp.int32)
    edges = edges.at[jnp.where(real, begins, longest)].add(real.astype(jnp.int32))
    edges = edges.at[jnp.where(real, ends, longest)].add(-real.astype(jnp.int32))
    return (jnp.cumsum(edges)[:longest] > 0) & (length > 1)


def corrupt(
    tokens: jax.Array, length: jax.Array, cut: jax.Array, last: jax.Array, sentinel: int, room: int,
    sentinels: bool = True,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Puts a sentinel in the place of each run of tokens that are cut, and moves the rest together.

    Args:
        tokens: [B, T]; length [B]: of each text, its end included. cut: bool [B, T]. last [B, 1]: the end.
        sentinel: id of the first one, the next ones count down. room: tokens of a result.
        sentinels: False: what is cut leaves nothing.
    Returns: (tokens, segments), int32 [B, room]: the text, its end, and padding of segment 0, token 0.
    """
    rows = tokens.shape[0]
    inside = jnp.arange(tokens.shape[1])[None] < length[:, None] - 1
    cut = cut & inside
    begins = cut & ~jnp.pad(cut, ((0, 0), (1, 0)))[:, :-1]
    number = jnp.cumsum(begins, axis=1) - 1
    shown = jnp.where(begins, sentinel - number, tokens)
    kept = inside & (~cut | begins if sentinels else ~cut)
    place = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, room)  # one past the end: dropped
    row = jnp.arange(rows)[:, None]
    made = jnp.zeros((rows, room), jnp.int32).at[row, place].set(shown.astype(jnp.int32), mode="drop")
    count = kept.sum(1)
    made = made.at[jnp.arange(rows), count].set(last[:, 0].astype(jnp.int32), mode="drop")
    segments = (jnp.arange(room)[None] <= count[:, None]) & (length > 0)[:, None]
    return jnp.where(segments, made, 0), segments.astype(jnp.int32)

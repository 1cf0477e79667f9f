"""A miniature world as a new folder, with what only some methods train on: word pairs, and few labelled rows.

    jxstilts world DIR
    python -m benchmarks.world_files DIR OUT [--shuffled]

OUT has links to all that is in DIR, and of each invented language XX beside English:

    word_pairs/XX.tsv           the word and its English translation, of three in four concepts, from the gold lexicon
    word_pairs/held-out/XX.tsv  of the fourth ones, which are the same concepts in every language
    xtreme_translations/XNLI/translate-train/en-XX-translated.tsv   the first 100 rows of XNLI dev, for MNLI in XX

Affixes, names, and words that are spelt as in English are left out. --shuffled gives each foreign word of word_pairs/
another one's translation.
"""

import argparse
import pathlib
import random
import sys
from collections.abc import Sequence

from jxstilts import runtime
from jxstilts.miniworld.setting import tab_lines
from jxstilts.readers import read_lines
from jxstilts.runtime import InputError

HELD_OUT = 4  # every fourth concept
FEW = 100  # rows


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.world_files", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("world", type=pathlib.Path, help="a folder that `jxstilts world` wrote")
    parser.add_argument("out", type=pathlib.Path, help="a new folder")
    parser.add_argument("--shuffled", action="store_true", help="words with the translations of other words")
    options = parser.parse_args(argv)
    try:
        write(options.world, options.out, options.shuffled)
    except InputError as error:
        print(f"benchmarks.world_files: error: {error}", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    return 0


def write(world: pathlib.Path, out: pathlib.Path, shuffled: bool = False) -> None:
    """See the module's own text. Raises InputError without a world, where `out` is there, and without two pairs."""
    columns, *rows = (line.split("\t") for line in read_lines(world / "gold/lexicon.tsv"))
    if out.exists():
        raise InputError(f"{out} is there already; give a new folder")
    concepts = [dict(zip(columns, row, strict=True)) for row in rows if row[1] != "PROPN"]
    held_out, trained = concepts[HELD_OUT - 1 :: HELD_OUT], [row for i, row in enumerate(concepts, 1) if i % HELD_OUT]
    codes = [code for code in columns[2:] if code != "en"]
    files = {}
    for code in codes:
        files[f"word_pairs/held-out/{code}.tsv"] = tab_lines(_pairs(held_out, code))
        pairs = _pairs(trained, code)
        if len(pairs) < 2:
            raise InputError(f"{world}: {code} has {len(pairs)} words that are spelt in another way than in English")
        words, english = zip(*pairs, strict=True)
        files[f"word_pairs/{code}.tsv"] = tab_lines(zip(words, _moved(english) if shuffled else english, strict=True))
        sides = [read_lines(world / f"xtreme/xnli/dev-{each}.tsv")[:FEW] for each in ("en", code)]
        few = [(*one.split("\t")[:2], *other.split("\t")) for one, other in zip(*sides, strict=True)]
        files[f"xtreme_translations/XNLI/translate-train/en-{code}-translated.tsv"] = tab_lines(few)
    out.mkdir(parents=True)
    own = {name.partition("/")[0] for name in files}
    for entry in sorted(world.iterdir()):
        if entry.name not in own:
            (out / entry.name).symlink_to(entry.absolute())
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")


def _pairs(concepts: Sequence[dict[str, str]], code: str) -> list[tuple[str, str]]:
    """Returns (word, English) where the word is there, stands alone, and is another than English's."""
    pairs = [(row[code], row["en"]) for row in concepts]
    return [(word, english) for word, english in pairs if word and "-" not in word and word != english]


def _moved(values: Sequence) -> list:
    """Returns the values in an order in which none is at its own place."""
    order = list(range(len(values)))
    random.Random(0).shuffle(order)
    moved = [None] * len(values)
    for i, place in enumerate(order):
        moved[place] = values[order[i - 1]]
    return moved


if __name__ == "__main__":
    sys.exit(main())

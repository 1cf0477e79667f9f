"""One event said in every language of the world, as an SVG: word order, script, affixes and shared words at a glance.

python -m jxstilts.miniworld.picture OUT.svg
"""

import html
import pathlib
import sys

from jxstilts import runtime
from jxstilts.miniworld import languages
from jxstilts.miniworld.setting import Setting, setting

# what is said -> colour: Okabe and Ito's, made light enough for black letters
COLOURS = {
    "agent": "#f3c77a", "negation": "#d9d9d9", "verb": "#f0a58a", "object": "#9fd3f2", "place": "#9fdcc4",
    "time": "#e6b8d4",
}  # fmt: skip
LEFT, ROW, LETTER, GAP = 150, 44, 9.2, 6  # pixels


def picture(world: Setting) -> str:
    """Returns the SVG. A word's colour says what part of the event it tells; a cognate or a loan is bold."""
    frame = _frame(world)
    rows, width = [], 0.0
    for number, language in enumerate(world.languages):
        x, y = float(LEFT), 40 + number * ROW
        about = f"{language.word_order}, {language.corpus:,} lines"
        rows.append(f'<text x="8" y="{y + 14}" font-weight="bold">{language.code}</text>')
        rows.append(f'<text x="36" y="{y + 14}" font-size="11" fill="#555">{about}</text>')
        for token in world.grammars[language.code].statement(frame)[:-1]:
            wide = max(2.0, len(token.form)) * LETTER + 10
            role = token.roles[0].split(":")[0]
            shared = world.grammars[language.code].lexicon.origin.get(token.concept, "own") != "own"
            weight = "bold" if shared else "normal"
            rows.append(
                f'<rect x="{x:.0f}" y="{y - 6}" width="{wide:.0f}" height="30" rx="4" '
                f'fill="{COLOURS[role]}"/>'
                f'<text x="{x + wide / 2:.0f}" y="{y + 14}" text-anchor="middle" font-weight="{weight}">'
                f"{html.escape(token.form)}</text>"
            )
            x += wide + GAP
        width = max(width, x)
    height = 40 + len(world.languages) * ROW
    legend = "".join(
        f'<rect x="{LEFT + 105 * i}" y="6" width="14" height="14" rx="3" fill="{colour}"/>'
        f'<text x="{LEFT + 19 + 105 * i}" y="18" font-size="12">{role}</text>'
        for i, (role, colour) in enumerate(COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 8:.0f} {height}" width="{width + 8:.0f}" '
        f'height="{height}" font-family="Noto Sans, DejaVu Sans, Arial, sans-serif" font-size="15">'
        f'<rect width="100%" height="100%" fill="#fff"/>{legend}{"".join(rows)}</svg>\n'
    )


def _frame(world: Setting):
    """An event whose statement has every part: denied, with a quality, a place and a time, and without names."""
    stream = world.stream("picture")
    while True:
        frame = world.world.sentence(stream, world.world.all_names)
        tokens = world.english.statement(frame)
        parts = {role for token in tokens for role in token.roles}
        wanted = {"agent:noun", "object:noun", "object:quality", "negation", "place:noun", "time:noun"}
        if wanted <= parts and len(tokens) < 15 and all(token.upos != "PROPN" for token in tokens):
            return frame


def main(argv: list[str]) -> int:
    """Writes the picture of the world of seed 0."""
    if len(argv) != 1:
        print("usage: python -m jxstilts.miniworld.picture OUT.svg", file=sys.stderr)
        return runtime.EXIT_BAD_INPUT
    runtime.atomic_write(pathlib.Path(argv[0]), picture(setting(0, languages.vary(()), "small")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

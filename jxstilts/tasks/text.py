"""Raw monolingual text, one line per example, for masked language modelling."""

import pathlib

from jxstilts.readers import checked, read_lines
from jxstilts.runtime import InputError
from jxstilts.tasks import languages
from jxstilts.tasks.spec import TaskSpec


def read_plain(path: pathlib.Path) -> list[dict]:
    """Reads a text file line by line, or the second column of a two-column .tsv; blank lines are left out."""
    examples = []
    for number, line in enumerate(read_lines(path), start=1):
        if path.suffix == ".tsv":
            cells = line.split("\t")
            if len(cells) != 2:
                raise InputError(f"{path}:{number}: {len(cells)} columns, expected 2: verse and text")
            line = cells[1]
        if line.strip():
            examples.append({"id": f"{path.parent.name}/{path.stem}:{number - 1}", "text": line})
    return checked(examples, "label", path)


def _fields(language):
    return {"language": (language,), "ntrex": languages.get(language).ntrex}


TEXT = TaskSpec(
    name="text",
    type="text",
    languages=("en", *(code for code in languages.XTREME_R if code != "en")),
    splits={
        "train": (
            "text/ntrex/newstest2019-src.{ntrex}.txt",
            "text/ntrex/newstest2019-ref.{ntrex}.txt",
            "text/ntrex/newstest2019-ref-2.{ntrex}.txt",
            "text/common_voice/{language}.txt",
            "text/bible/{language}.tsv",
        )
    },
    fields=_fields,
    union=True,
    read=read_plain,
    description="Sentences of NTREX (news), Common Voice (prompts) and the Bible, those that a language has",
    url="https://github.com/MicrosoftTranslator/NTREX",
    licence="by source: NTREX CC BY-SA 4.0, Common Voice CC0",
)

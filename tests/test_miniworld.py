"""The miniature world as a data_dir: the same bytes again, read by every task, varied one thing at a time."""

import functools
import hashlib
import json
import logging
import pathlib
import re
import shutil

import pytest

from jxstilts import cli, miniworld, tasks
from jxstilts.miniworld import choice, languages, pairs, qa, retrieval, xtreme_r
from jxstilts.runtime import InputError
from jxstilts.tasks.languages import LANGUAGES
from jxstilts.tasks.tagging import NER, UPOS

CODES = ("en", "de", "es", "ru", "el", "hi", "ar", "tr")
FOREIGN = CODES[1:]
# task -> (splits, languages): all that the world writes
WRITTEN = {
    **dict.fromkeys(("mnli", "snli", "anli", "anli_plus", "qqp", "squad_v1", "squad_v2"), (("train", "dev"), ("en",))),
    **dict.fromkeys(("hellaswag", "cosmosqa", "commonsenseqa"), (("train", "dev"), ("en",))),
    "ccg": (("train", "dev", "test"), ("en",)),
    "xnli": (("dev", "test"), CODES),
    "pawsx": (("dev", "test"), pairs.PAWSX_LANGUAGES),
    "udpos": (("train", "dev", "test"), CODES),
    "panx": (("train", "dev", "test"), CODES),
    "xquad": (("test",), CODES),
    "mlqa": (("dev", "test"), tuple(a if a == b else f"{a}-{b}" for a in qa.MLQA_LANGUAGES for b in qa.MLQA_LANGUAGES)),
    "tydiqa": (("dev",), tuple(qa.TYDIQA_LANGUAGES)),
    "bucc2018": (("dev", "test"), retrieval.BUCC_LANGUAGES),
    "tatoeba": (("test",), FOREIGN),
    "text": (("train",), CODES),
    **dict.fromkeys(("siqa", "copa"), (("train", "dev", "test"), ("en",))),
    **dict.fromkeys(("xcopa", "xcopa_gmt"), (("dev", "test"), xtreme_r.XCOPA_LANGUAGES)),
    **dict.fromkeys(("squad_retrieval", "tydiqa_retrieval", "wikipedia_pairs"), (("train", "dev"), ("en",))),
    "lareqa": (("test",), CODES),
    "mewslix": (("dev", "test"), xtreme_r.MEWSLIX_LANGUAGES),
}
CELLS = [(task, split, code) for task, (splits, codes) in WRITTEN.items() for split in splits for code in codes]
CELLS += [("pawsx", "train", "en"), ("tydiqa", "train", "en")]
# what holds words of all languages: the lexicon, and entities that are described in one of them each
ENTITIES = ("candidate_set_entities", "wikipedia_pairs-train", "wikipedia_pairs-dev")
SHARED = ("gold/lexicon.tsv", *(f"xtreme-r/mewslix/{name}.jsonl" for name in ENTITIES))
GOLD = {"classification": "label", "choice": "label", "tagging": "tags", "span": "answers"}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@functools.cache
def varied(*changes: str) -> dict[str, str]:
    """The files of a tiny world that are not its record."""
    from jxstilts.miniworld import setting, writer

    return dict(writer.files(setting.setting(0, languages.vary(changes), "tiny")))


def test_the_same_options_give_the_same_bytes(world, tmp_path):
    record = miniworld.write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(world)
    files = contents(world)
    files.pop("world.json")
    whole = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    assert record["sha256"] == hashlib.sha256(whole.encode()).hexdigest()
    # Of version 3: a change of any byte is a new version of the world, and of all that was trained on it.
    assert record["version"] == 3
    assert record["sha256"] == "3002365416c14fd567d66f9badb340a97c898d50d85a7c63bee8bd7d04facbbd"
    assert miniworld.write(tmp_path / "other", seed=1)["sha256"] != record["sha256"]


def test_the_record_says_how_the_world_was_made(world):
    record = json.loads((world / "world.json").read_text())
    assert (record["seed"], record["size"], record["vary"]) == (0, "tiny", [])
    assert record["files"] == len(contents(world)) - 1
    assert [one["code"] for one in record["languages"]] == list(CODES)
    assert {one["code"] for one in record["languages"] if one["resource"] == "low"} == {"el", "hi", "ar", "tr"}
    for one in record["languages"]:
        lines = (world / f"text/common_voice/{one['code']}.txt").read_text().splitlines()
        assert len(lines) == one["sentences"] + one["documents"]


@pytest.mark.parametrize(("task", "split", "code"), CELLS)
def test_every_file_is_read_with_its_gold(task, split, code, world, caplog):
    spec = tasks.get(task)
    with caplog.at_level(logging.WARNING):
        examples = tasks.load(task, world, split, code, source="files")
    assert not caplog.records
    assert tasks.available(task, world, split, code, source="files")
    if spec.type in ("retrieval", "mining"):
        assert examples["gold"] and len({row["text"] for row in examples["source"]}) == len(examples["source"])
        assert len({row["text"] for row in examples["target"]}) == len(examples["target"])
    elif spec.type in GOLD:
        assert all(GOLD[spec.type] in example for example in examples)
        assert len(examples) >= 20


def test_every_task_is_written():
    # what the world leaves out of a task: the test sets without labels, and languages that it has not
    # templates of real languages, and pairs of the user's own
    assert set(WRITTEN) == set(tasks.names()) - {"multichecklist", "word_pairs"}
    for task in ("xnli", "udpos", "panx", "xquad"):
        assert set(CODES) <= set(tasks.get(task).languages)
    assert set(FOREIGN) <= set(tasks.get("tatoeba").languages)
    shared = {"pawsx": pairs.PAWSX_LANGUAGES, "mlqa": qa.MLQA_LANGUAGES, "tydiqa": qa.TYDIQA_LANGUAGES}
    shared["bucc2018"] = retrieval.BUCC_LANGUAGES
    shared |= {"xcopa": xtreme_r.XCOPA_LANGUAGES, "lareqa": CODES, "mewslix": xtreme_r.MEWSLIX_LANGUAGES}
    for task, codes in shared.items():
        assert set(codes) == set(CODES) & set(tasks.get(task).languages)


def test_the_codes_are_those_of_the_benchmark():
    for language in (languages.ENGLISH, *languages.INVENTED):
        real = LANGUAGES[language.code]
        assert (language.iso3, language.script) == (real.iso3, real.script)
        assert language.ntrex in real.ntrex


def test_rows_are_parallel_across_languages(world):
    for task, split in (("xnli", "dev"), ("xquad", "test"), ("udpos", "test"), ("panx", "dev")):
        english = tasks.load(task, world, split, "en")
        for code in FOREIGN:
            other = tasks.load(task, world, split, code)
            assert [row["id"] for row in other] == [row["id"] for row in english]
            assert [row.get("label") for row in other] == [row.get("label") for row in english]
            if task == "panx":
                for a, b in zip(english, other, strict=True):
                    assert sorted(tag for tag in a["tags"] if tag != "O") == sorted(t for t in b["tags"] if t != "O")


def test_tags_are_known_and_all_kinds_occur(world):
    for code in CODES:
        tags = {tag for row in tasks.load("udpos", world, "test", code) for tag in row["tags"]}
        assert tags <= set(UPOS)
        assert tags >= {"NOUN", "VERB", "ADJ", "NUM", "PROPN", "PUNCT", "CCONJ"}
        assert {tag for row in tasks.load("panx", world, "dev", code) for tag in row["tags"]} == set(NER)


@pytest.mark.parametrize("code", FOREIGN)
def test_one_word_has_one_part_of_speech(code, world):
    lexicon = [line.split("\t") for line in (world / "gold/lexicon.tsv").read_text().splitlines()]
    column = lexicon[0].index(code)
    words = {row[column]: row[1] for row in lexicon[1:] if row[column]}
    assert len(words) == sum(bool(row[column]) for row in lexicon[1:])  # no two concepts share a word
    for row in tasks.load("udpos", world, "test", code):
        for word, tag in zip(row["words"], row["tags"], strict=True):
            assert words.get(word, tag) == tag


def test_answers_are_right_at_their_offsets(world):
    # the reader has checked the offsets; here, that an answer is a whole word or several, and the question's kind
    rows = tasks.load("xquad", world, "test", "en")
    kinds = {"who": 0, "what": 0, "where": 0, "when": 0}
    for row in rows:
        answer = row["answers"][0]
        end = answer["start"] + len(answer["text"])
        assert row["context"][end] == " " and (answer["start"] == 0 or row["context"][answer["start"] - 1] == " ")
        kind = next(word for word in row["question"].split() if word in kinds)
        kinds[kind] += 1
        before = row["context"][: answer["start"]].split()
        if kind == "when":
            assert before[-1] == "at"
        if kind == "where":
            assert "in" in before[-2:]
    assert all(kinds.values())


def test_a_variation_changes_only_its_language():
    plain = varied()
    for change in ("tr.word_order=OVS", "tr.cognates=50", "tr.script=Cyrl", "tr.negation=before", "tr.plural=prefix"):
        changed = {name for name, text in varied(change).items() if text != plain[name]}
        assert "xtreme/xnli/test-tr.tsv" in changed
        assert all(name in SHARED or re.search(r"\btr\b|\btur\b", name) for name in changed), change


def test_a_variation_of_order_keeps_the_words_and_of_the_corpus_the_rest():
    plain, order = varied(), varied("word_order=VOS")
    for code in FOREIGN:
        name = f"xtreme/xnli/test-{code}.tsv"
        assert [sorted(row.split()) for row in order[name].splitlines()] == [
            sorted(row.split()) for row in plain[name].splitlines()
        ]
    assert order["gold/lexicon.tsv"] == plain["gold/lexicon.tsv"]
    corpus = varied("de.corpus=4800")
    assert {name for name in plain if plain[name] != corpus[name]} == {"text/common_voice/de.txt"}
    long, short = (text["text/common_voice/de.txt"].splitlines() for text in (plain, corpus))
    assert short == long[:40] + long[80:120]
    foreign = re.compile(r"\b(de|es|ru|el|hi|ar|tr|deu|spa|rus|ell|hin|arb|ara|tur)\b")
    english = [name for name in plain if not foreign.search(name) or name.endswith("eng")]
    english = [name for name in english if name not in SHARED[1:]]
    assert len(english) > 45 and all(plain[name] == order[name] for name in english)


def test_less_parallel_text_is_the_beginning_of_more():
    plain, less = varied(), varied("tr.parallel=200", "hi.parallel=0")
    turkish, hindi = (f"text/ntrex/newstest2019-ref.{code}.txt" for code in ("tur", "hin"))
    assert less[turkish].splitlines() == plain[turkish].splitlines()[:20]
    alignment = "gold/alignment.en-tr.txt"
    assert less[alignment].splitlines() == plain[alignment].splitlines()[:20]
    assert {name for name in plain if less.get(name) != plain[name]} == {
        turkish, hindi, alignment, "gold/alignment.en-hi.txt",
    }  # fmt: skip
    assert set(plain) - set(less) == {hindi, "gold/alignment.en-hi.txt"}


def test_glosses_say_a_sentence_again_in_english():
    name = "text/common_voice/tr.txt"
    bare, some, every = (varied(f"tr.glosses={share}") for share in (0, 40, 100))
    assert {file for file in bare if bare[file] != every[file]} == {name}
    lines = list(zip(*(files[name].splitlines() for files in (bare, some, every)), strict=True))
    english = set(varied()["gold/lexicon.tsv"].split()) | {"."}
    sentences = len(lines) - len(lines) // 2
    for number, (plain, now_and_then, always) in enumerate(lines):
        assert now_and_then in (plain, always) and always.startswith(plain)
        gloss = always.removeprefix(plain).split()
        assert bool(gloss) == (number < sentences)  # documents have none
        assert {word.removesuffix("s") for word in gloss} <= {word.removesuffix("s") for word in english}
    assert 0 < sum(a != b for a, b, _ in lines) < sentences


def test_more_cognates_only_add_cognates():
    def shared(share):
        rows = [line.split("\t") for line in varied(f"es.cognates={share}")["gold/lexicon.tsv"].splitlines()]
        column = rows[0].index("es")
        return {row[0] for row in rows if row[column] == row[0].translate(str.maketrans("cw", "kv"))}

    assert shared(0) < shared(30) < shared(60)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("word_order", "give ATTRIBUTE=VALUE"),
        ("word_order=SVX", "unknown value of word_order 'SVX'; did you mean"),
        ("xx.word_order=SVO", "unknown language 'xx'"),
        ("order=SVO", "did you mean 'word_order'"),
        ("en.word_order=SOV", "of English only the corpus"),
        ("de.corpus=many", "corpus is a whole number from 2 to 1000000"),
        ("de.loans=60", "cognates and loans of de are 105 per cent"),
    ],
)
def test_bad_variations_are_refused_in_one_line(change, message, tmp_path, capsys):
    assert cli.main(["world", str(tmp_path / "w"), "--vary", change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--size=huge"], ["--seed=one"], ["--seed=-1"], ["--colour"]])
def test_bad_options_are_refused_in_one_line(options, tmp_path, capsys):
    assert cli.main(["world", str(tmp_path / "w"), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_kept(world, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    for force in ([], ["--force"]):
        assert cli.main(["world", str(full), "--size=tiny", *force]) == 2
        assert "not empty" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="not a folder"):
        miniworld.write(full / "thesis.txt")

    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    assert cli.main(["world", str(copy), "--size=tiny"]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    (copy / "gold/lexicon.tsv").unlink()
    assert cli.main(["world", str(copy), "--size=tiny", "--force"]) == 0
    assert "sha256" in capsys.readouterr().out
    assert contents(copy) == contents(world)
    (tmp_path / "empty").mkdir()
    miniworld.write(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "empty", "full"]


def test_a_failed_write_leaves_nothing(world, tmp_path, monkeypatch):
    from jxstilts.miniworld import writer

    copy = tmp_path / "copy"
    shutil.copytree(world, copy)

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(writer, "_write", full)
    with pytest.raises(InputError, match="no space left"):
        miniworld.write(tmp_path / "new")
    with pytest.raises(InputError, match="no space left"):
        miniworld.write(copy, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert contents(copy) == contents(world)


def test_choices_have_no_favourite_letter(world):
    for task, count in (("hellaswag", 4), ("cosmosqa", 4), ("commonsenseqa", 5)):
        labels = [row["label"] for row in tasks.load(task, world, "train")]
        assert sorted(labels) == sorted(i % count for i in range(len(labels)))
    assert choice.FAVOURITES < 5

"""Everything that people read is plain English: docs, help, messages, configuration, docstrings and comments.

Each row has words that are right in another language and hard to read in English, an example that shows the
pattern finds them, and what to write instead.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`found` matches the words; `prose` says that they are wrong only where sentences stand, in the docs."""

    found: str
    example: str
    instead: str
    prose: bool = False


WORDS = (
    Words(found=r"\banew\b", example="The stage begins anew.", instead="again, from scratch"),
    Words(
        found=r"\b(?:likewise|thereof|whereof|wherein|albeit|lest)\b",
        example="The end thereof.",
        instead="also, of it",
    ),
    Words(
        found=r"(?<![-\"'`])(?<!leave it )(?<!left )(?<!stand )\balone\b(?![\"'`\]])",
        example="Found by the scan alone.",
        instead="only; by itself",
    ),
    Words(
        found=r"\bwho(?:so)?ever\b", example="Whoever drops a slide waits.", instead="anyone who"
    ),
    Words(
        found=r"\bwhatever\b", example="Whatever goes wrong.", instead="anything that, any, no matter what"
    ),
    Words(
        found=r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more than\b|less than\b|one\b)",
        example="A link is no file.",
        instead="is not a",
    ),
    Words(
        found=r"\bno more\b(?! than)(?! \w+ than)",
        example="It is no more in the project.",
        instead="no longer, nothing else",
    ),
    Words(
        found=r"\bto be had\b|\bof (?:ours|theirs)\b",
        example="slideio is not to be had here.",
        instead="available; our own, their own",
    ),
    Words(
        found=r"(?:^|(?<=[.:;|] )|(?<=- ))(?-i:What) (?:is|was|are|cannot|can|has|have|had|lies|came|comes|waits|goes|fails"
        r"|failed|follows|ends|remains)\b(?![^.\n]*\?)",
        example="What is damaged is named.",
        instead="the thing itself: damaged files, unknown values",
        prose=True,
    ),
    Words(found=r"which are allowed", example="more than 10, which are allowed", instead="more than the 10 allowed"),
    Words(
        found=r"\blook(?:s|ed)? whether\b|\bbe the daemon\b",
        example="Look whether it runs.",
        instead="check whether; run the daemon",
    ),
    Words(
        found=r"\bnobody (?:foresaw|knows|knew|can tell|could tell|can know|can say)\b",
        example="An error that nobody foresaw.",
        instead="unexpected, unknown, cannot be detected",
    ),
    Words(
        found=r"[a-z`], for (?:it|they|he|she|nothing|nobody|there|we)\b",
        example="It waits, for it is not whole.",
        instead="because",
    ),
    Words(found=r"\bbe it\b", example="Be it a file or a folder.", instead="whether"),
    Words(
        found=r"(?-i:\bOf everything that\b|\bOf all that \w+ holds\b)",
        example="Of everything that is converted holds:",
        instead="for everything that",
    ),
    Words(
        found=r"\b(?:tells?|told) of\b|\b(?:is|are|was|were|be|been) told\b(?! apart)|\bsa(?:ys|id) of (?:it|him)self\b",
        example="The admin is told of it.",
        instead="reports, shows, is shown; is informed; states",
    ),
    Words(
        found=r"\b(?:one|row|line|module|paragraph) an? (?:uploaded|format|event|core|vendor|row|slide|panel|level|child)\b",
        example="a row an uploaded file",
        instead="per",
    ),
    Words(
        found=r"\b(?:samples|bytes|bits|pixels|tiles|fsyncs) an? (?:pixel|level|claim|sample|side|member)\b(?! has\b)",
        example="It has five samples a pixel.",
        instead="per",
    ),
    Words(
        found=r"\bleave out an? (?:id|one) that\b",
        example="Leave out an id that you have seen.",
        instead="ignore any id you have already processed",
    ),
    Words(
        found=r"\b(?:come|comes|came|coming) to (?:its|an|their) end\b",
        example="An uploaded file comes to its end.",
        instead="is finished, ends",
    ),
    Words(
        found=r"\b(?:sandboxed|forked|decoding|decoder) child(?:ren)?\b|\bchild process(?:es)?\b"
        r"|\b(?:a|the|its|one|each) child (?:that decodes|dies|crashes|hangs|may write|reports|writes|of the zygote)\b"
        r"|\b(?:zygote|decoders?|Landlock|seccomp|kernel)\b[^.\n|]{0,60}\bchild(?:ren)?\b"
        r"|\bchild(?:ren)?\b[^.\n|]{0,60}\b(?:zygote|decod\w+|sandbox\w*|fork(?:s|ed)?|Landlock|seccomp)\b",
        example="The zygote forks a child.",
        instead="decoder, decoder process; a child is a member of an archive",
    ),
    Words(
        found=r"\b(?:stage|state|storage|root|working|output) folders?\b|\bfolders? (?:in|of|below|under) `*(?:state|stages|storage)\b"
        r"|\bdropped director(?:y|ies)\b",
        example="The stage folder of a dropped directory.",
        instead="a folder is what a user dropped; a directory is ours",
    ),
    Words(found=r"\b(?:his|himself)\b", example="The user and his inbox.", instead="their, the user's"),
    Words(found=r"\bshall\b", example="It shall start.", instead="will, must"),
)  # fmt: skip
_COMPILED = [(re.compile(one.found, re.IGNORECASE | re.MULTILINE), one) for one in WORDS]


def documents() -> list[Path]:
    """What a person opens to read, the configuration and alerts included."""
    kinds = ("docs/**/*.md", "config/**/*.toml", "config/**/*.yml", "config/**/*.conf", "systemd/*")
    return sorted({*HOUSE.glob("*.md"), *(path for kind in kinds for path in HOUSE.glob(kind))})


def _today(text: str) -> str:
    """`text` without the notes of an earlier version, which what-a-technician-sees.md quotes as they were."""
    return re.sub(r"(?s)<details>.*?</details>", lambda found: "\n" * found[0].count("\n"), text)


def sources() -> list[Path]:
    """Python, whose comments, docstrings and messages are read."""
    kinds = ("cytowatch/**/*.py", "benchmarks/*.py", "docs/*.py", "tests/**/*.py")
    found = {path for kind in kinds for path in HOUSE.glob(kind)} - {Path(__file__).resolve()}
    return sorted(found)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each comment, docstring and string."""
    wanted = {"COMMENT", "STRING", "FSTRING_MIDDLE"}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if tokenize.tok_name[token.type] in wanted:
            yield token.start[0], token.string


def _descriptions(value: object) -> Iterator[str]:
    """The texts of a JSON Schema."""
    match value:
        case dict():
            for key, inner in value.items():
                if key == "description" and isinstance(inner, str):
                    yield inner
                else:
                    yield from _descriptions(inner)
        case list():
            for inner in value:
                yield from _descriptions(inner)


def complaints(text: str, *, prose: bool) -> Iterator[tuple[int, str]]:
    """(line within `text`, what is wrong) for all words that are on the list."""
    for pattern, one in _COMPILED:
        if one.prose and not prose:
            continue
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start())
            yield line, f"{found[0]!r}: write {one.instead}"


def _refuse(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("one", WORDS, ids=lambda one: one.example)
def test_each_pattern_finds_its_example(one: Words) -> None:
    """Or the list would guard nothing."""
    assert any(one.instead in said for _, said in complaints(one.example, prose=True))


@pytest.mark.parametrize(
    "good",
    [
        "Leave it alone until the copy is done.",
        "There is no room on the disk.",
        "It is no longer in the project.",
        "What is missing?",
        "Wait for it, for a minute at most.",
        "One line per uploaded file.",
    ],
)
def test_good_sentences_pass(good: str) -> None:
    """The list names words, not the English that they resemble."""
    assert list(complaints(good, prose=True)) == []


def test_documents_and_configuration() -> None:
    """README, docs, changes, configuration, alerts; the pages made from help, reasons and metrics among them."""
    _refuse(
        [
            f"{path.relative_to(HOUSE)}:{line + 1}: {said}"
            for path in documents()
            for line, said in complaints(_today(path.read_text()), prose=path.suffix == ".md")
        ]
    )


def test_docstrings_comments_and_messages() -> None:
    """In the package, its benchmarks, its tests."""
    _refuse(
        [
            f"{path.relative_to(HOUSE)}:{start + line}: {said}"
            for path in sources()
            for start, text in _texts(path)
            for line, said in complaints(text, prose=False)
        ]
    )


def test_schemas() -> None:
    """The descriptions of keys, which the manifest's page shows."""
    _refuse(
        [
            f"{path.relative_to(HOUSE)}: {said}"
            for path in sorted(HOUSE.glob("cytowatch/**/*.schema.json"))
            for text in _descriptions(json.loads(path.read_text()))
            for _, said in complaints(text, prose=True)
        ]
    )

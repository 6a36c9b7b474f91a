"""Docstrings as markdown: formulas stay as they are, notes are taken out, and nothing else is lost."""

import re

import pytest

from docs.generators import declarations
from docs.generators.docstrings import NOTE, read

EXAMPLE = """Name: what it does (Author, CONF 2020, arXiv 2001.00001).

    L = a_k * b_k        formula

    M = c

Prose with ``code``, :class:`scd.x.Y`, a_b * c and <angle>. NOTE: it departs
here.
NOTE: and there.

- first point; NOTE: of the point.
- second point

Args:
    one: of the arguments,
        in two lines. NOTE: without it nothing works.
    two, three: others.

Raises:
    UsageError: never.
"""


def test_a_docstring_has_title_formula_prose_lists_and_notes():
    doc = read(EXAMPLE)
    assert doc.title == "Name: what it does (Author, CONF 2020, arXiv 2001.00001)" and doc.papers == ("2001.00001",)
    assert "```text\nL = a_k * b_k        formula\n\nM = c\n```" in doc.body
    assert r"Prose with `code`, `scd.x.Y`, a\_b \* c and \<angle\>." in doc.body
    assert "- first point\n- second point" in doc.body
    assert "**Arguments**\n\n- `one`: of the arguments, in two lines.\n- `two`, `three`: others." in doc.body
    assert "**Errors**\n\n- `UsageError`: never." in doc.body
    assert doc.notes == ("it departs here.", "and there.", "of the point.", "`one`: without it nothing works.")
    assert "NOTE" not in doc.body


def test_a_title_of_two_lines_and_no_docstring():
    assert read("First\nsecond.\n\nRest.").title == "First second" and read("First\nsecond.\n\nRest.").body == "Rest."
    assert read(None).title == "" and read("One.").body == ""


def words(text: str) -> list[str]:
    """The words of a text, without what markdown adds."""
    text = re.sub(r":(class|func|meth|mod|data|attr):|https://arxiv.org/abs/[\d.]+|```\w*", " ", text)
    return re.findall(r"\w+", text.replace("\\", ""))


@pytest.mark.parametrize("module", declarations.modules())
def test_no_word_of_a_method_is_lost(module):
    text = __import__(module, fromlist=["x"]).__doc__
    doc = read(text)
    shown = words(" ".join([doc.title, doc.body, *doc.notes]))
    meant = [word for word in words(text) if word not in {"NOTE", "Args", "Raises", "Attributes", "Returns"}]
    assert not [word for word in set(meant) if shown.count(word) < meant.count(word)]
    assert len(doc.notes) == len(NOTE.findall(text))

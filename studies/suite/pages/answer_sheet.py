"""The answer sheet: every question of the reviewers with what the committed pages say about it.

Every word about a result comes from a page: from its claims, judged again from its records, or from its own answer
where they cannot be. A question without a page says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas

from studies.suite.analysis.tables import NONE, Table
from studies.suite.analysis.verdict import CONTRADICTED, NOT_RESOLVED, SUPPORTED, UNINFORMATIVE
from studies.suite.pages import reread
from studies.suite.pages.markdown import Blocks, page_link
from studies.suite.pages.questions import ID, QUESTIONS, REVIEWERS, Question, Source
from studies.suite.pages.reread import Part, Reading
from studies.suite.planning.command_line import study_names

OPENINGS = {  # of the clause about claims of one outcome; the second word comes before each of them
    SUPPORTED: ("**supported:** it holds", "that"),
    CONTRADICTED: ("**contradicted:** it does not hold", "that"),
    NOT_RESOLVED: ("**not resolved:**", "whether"),
    UNINFORMATIVE: ("**uninformative,** because a positive control fails:", "whether"),
}
NO_PAGE, NO_CLAIM = "no page yet", "no claim"
TITLE = re.compile(r"\*([^*]+\?)\* (?=\*\*)")  # of a claim, in the answer of a page
OWN_SESSIONS = {"cost_profile": "cost-profile"}  # sessions of nox that are not called study-NAME


@dataclass(frozen=True)
class PageAnswer:
    """What one page says about one question.

    Attributes:
        parts: the page's claims that belong to the question, judged again.
        stored: where there are none, what the page's own answer says about it, in markdown; empty: nothing.
    """

    reading: Reading
    source: Source
    parts: tuple[Part, ...]
    stored: str = ""

    @property
    def outcome(self) -> str:
        """The outcomes of the claims, or of the whole page where they are not known one by one."""
        if self.parts:
            return reread.outcomes(self.parts)
        return (self.reading.about.get("outcome") or "none yet") if self.stored else NO_CLAIM

    @property
    def link(self) -> str:
        """To the page, marked where it is stale."""
        return page_link(self.reading.name) + (" (**stale**)" if self.reading.stale else "")

    @property
    def place(self) -> str:
        """Its images and tier: "shapes, tier cpu"."""
        about = self.reading.about
        return ", ".join(filter(None, [about.get("data", ""), f"tier {about['tier']}" if about.get("tier") else ""]))

    @property
    def clause(self) -> str:
        """The answer as a part of a sentence, without a full stop."""
        if self.parts:
            clauses = []
            for outcome, (opening, word) in OPENINGS.items():
                told = [f"{word} {part.verdict.claim}" for part in self.parts if part.outcome == outcome]
                clauses += [f"{opening} {', and '.join(told)}"] if told else []
            return "; ".join(clauses)
        if self.stored:
            first = re.split(r"\.\*{0,2}\s+(?=[A-Z*])", TITLE.sub("", self.stored), maxsplit=1)[0]
            return first.rstrip(".")
        where = f": {self.source.note}" if self.source.note else ""
        return f"no claim of {page_link(self.reading.name)} is about this question{where}"


@dataclass(frozen=True)
class Entry:
    """A question with its pages.

    Attributes:
        main: of each study that has a page, the default one or else the first; others: the further ones.
        missing: studies without a page, in words.
    """

    question: Question
    main: tuple[PageAnswer, ...]
    others: tuple[PageAnswer, ...]
    missing: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The answer in one sentence."""
        told = [each for each in self.main if each.outcome != NO_CLAIM]
        clauses = self._by_study([(each, each.clause) for each in told])
        if not told:
            clauses = [*self.missing, *(each.clause for each in self.main)]
        text = re.sub(r"^\W*[a-z]", lambda found: found[0].upper(), "; ".join(clauses))
        return text if text.endswith(".") else f"{text}."

    @property
    def outcome(self) -> str:
        """The outcomes, study by study."""
        told = [(each, each.outcome) for each in self.main if each.outcome != NO_CLAIM]
        return "; ".join(self._by_study(told)) or (NO_CLAIM if self.main else NO_PAGE)

    @property
    def pages(self) -> str:
        """Links to the pages that the answer comes from."""
        return ", ".join(each.link for each in self.main) or NONE

    @property
    def tier(self) -> str:
        """Their tiers."""
        return ", ".join(dict.fromkeys(each.reading.about.get("tier", "") for each in self.main)) or NONE

    @property
    def detectable(self) -> str:
        """The differences that these claims could have detected, study by study."""
        found = [(each, reread.detectable(each.parts)) for each in self.main]
        return "; ".join(self._by_study([(each, text) for each, text in found if text])) or NONE

    @staticmethod
    def _by_study(texts: Sequence[tuple[PageAnswer, str]]) -> list[str]:
        """The texts; named by their pages where there are several."""
        return [f"{page_link(each.reading.name)}: {text}" if len(texts) > 1 else text for each, text in texts]


def entries(readings: Mapping[str, Reading]) -> list[Entry]:
    """All questions in the reviewers' order, with what these pages say."""
    return [entry(question, readings) for question in QUESTIONS]


def entry(question: Question, readings: Mapping[str, Reading]) -> Entry:
    """A question with what these pages say; a page belongs to it where its records name the question."""
    asked = [each for each in readings.values() if question.id in each.about.get("questions", [])]
    sources = {source.study: source for source in question.sources}
    sources |= {each.study: Source(each.study) for each in asked if each.study not in sources}
    main, others, missing = [], [], []
    for source in sources.values():
        pages = sorted((each for each in asked if each.study == source.study), key=lambda page: not page.is_default)
        found = [page_answer(question, source, page) for page in pages]
        main += found[:1]
        others += found[1:]
        missing += [] if found else [no_page(source.study)]
    return Entry(question, tuple(main), tuple(others), tuple(missing))


def page_answer(question: Question, source: Source, reading: Reading) -> PageAnswer:
    """What of a page's answer belongs to a question."""
    if reading.parts:
        chosen = source.chosen(question.id, [part.title for part in reading.parts])
        parts = tuple(part for part, is_chosen in zip(reading.parts, chosen, strict=True) if is_chosen)
        return PageAnswer(reading, source, parts)
    return PageAnswer(reading, source, (), stored_answer(question, source, reading.about.get("answer") or ""))


def stored_answer(question: Question, source: Source, answer: str) -> str:
    """What of an answer, as the page has it, belongs to a question: parts that begin with an id, or with a title."""
    by_id = [part for part in re.split(rf"(?:^|(?<=\s))(?={ID.pattern}: )", answer) if ID.match(part)]
    if by_id:
        mine = [part for part in by_id if part.startswith(question.id)]
        return " ".join(part.partition(": ")[2].strip() for part in mine)
    starts = [found.start() for found in TITLE.finditer(answer)]
    parts = [answer[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=False)]
    chosen = source.chosen(question.id, [TITLE.match(part)[1] for part in parts])
    return " ".join(part for part, is_chosen in zip(parts, chosen, strict=True) if is_chosen) or answer


def no_page(study: str) -> str:
    """Why a study has no page."""
    if study in study_names():
        session = OWN_SESSIONS.get(study, f"study-{study.replace('_', '-')}")
        return f"{NO_PAGE}: study `{study}` has not been run (`nox -s {session}`)"
    return f"{NO_PAGE}: study `{study}` is not built"


# -------------------------------------------------------------------- markdown


def write(blocks: Blocks, found: list[Entry]) -> None:
    """The sheet as markdown: a table of all questions, then one part per question."""
    blocks.heading("All answers", level=2)
    blocks.text(
        "A question has the outcomes of its pages' claims, judged by the rule that each page states under *How the "
        "answer follows*. The last column is the difference that a claim could have detected with 80 % power."
    )
    blocks.table(Table(pandas.DataFrame([row(each) for each in found])))
    for reviewer, words in REVIEWERS.items():
        blocks.heading(f"{reviewer}: {words}", level=2)
        for each in (each for each in found if each.question.id.startswith(reviewer)):
            part(blocks, each)


def row(found: Entry) -> dict[str, str]:
    """A question in the first table."""
    return {
        "question": found.question.id,
        "outcome": found.outcome,
        "page": found.pages,
        "tier": found.tier,
        "could have detected": found.detectable,
    }


def part(blocks: Blocks, found: Entry) -> None:
    """A question with its answer, and the claims behind it, collapsed."""
    blocks.heading(found.question.id)
    blocks.text(f"> {found.question.text}", f"**Answer.** {found.answer}")
    blocks.items(facts(found))
    if any(each.parts or each.stored for each in found.main):
        details = blocks.details("What the pages say")
        for each in found.main:
            claims(details, each)


def facts(found: Entry) -> dict[str, str]:
    """What stands below an answer: outcome, pages, what they could have detected, what larger tiers would add."""
    told = {"Outcome": found.outcome}
    if found.main:
        told["Page"] = "; ".join(f"{each.link}, {each.place}" for each in found.main)
        told["Could have detected"] = found.detectable
    if found.others:
        told["Other pages"] = "; ".join(f"{each.link}, {each.place}: {each.outcome}" for each in found.others)
    notes = [
        f"{page_link(each.reading.name)}: {each.source.note}" for each in found.main if each.source.note and each.parts
    ]
    told |= {"Beside the claims": "; ".join(notes)} if notes else {}
    told |= {"Not answered yet": "; ".join(found.missing)} if found.missing and found.main else {}
    return told | {"Tier `gpu` would add": found.question.gpu, "Tier `paper` would add": found.question.paper}


def claims(blocks: Blocks, found: PageAnswer) -> None:
    """The claims of a page that belong to a question, one by one, and what they could have seen."""
    blocks.text(f"{found.link}, {found.place}:")
    if found.reading.reason:
        blocks.text(f"The answer is given as the page has it: {found.reading.reason}.")
    if found.parts:
        blocks.items([f"*{part.title}* {part.text}" if part.title else part.text for part in found.parts])
        blocks.text(f"**What they could have seen.** {reread.could_have_seen(found.parts)}")
    else:
        blocks.text(found.stored or f"{found.clause[0].upper()}{found.clause[1:]}.")

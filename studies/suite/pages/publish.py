"""From the results of a study to its page: the one pipeline that writes every page.

The first screen has the question, the answer, one table, one figure, and what the page could have seen. Everything
else is collapsed under details. A study contributes through :class:`Report`: the claims to judge, the first table and
figure, its own sections. The page depends on the results alone: ``publish(study, load(out, page), out)`` writes it
again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from studies.suite.analysis.answers import answer, sensitivity, sentence
from studies.suite.analysis.conditions import planned_claims, versus, words
from studies.suite.analysis.results import Results, save
from studies.suite.analysis.statistics import PairedResult
from studies.suite.analysis.tables import Table
from studies.suite.analysis.verdict import (
    Finding,
    Verdict,
    family,
    joined,
    judge,
    judge_claims,
    measure_controls,
)
from studies.suite.pages import calibration, sections
from studies.suite.pages.contrasts import Judgement, contrasts
from studies.suite.pages.markdown import Blocks, Details, Page, Picture
from studies.suite.pages.state_of_runs import completeness, machines
from studies.suite.planning.study import Claim, Contrast, Study

DEFAULT_HOST = "MoCo"


class Report:
    """A page under construction; a study's ``sections`` function fills it.

    Attributes:
        study, results: what the page is about; out: the folder of the page, for figures. Where the command line chose
            another host than MoCo, the study's arms and contrasts are named by it.
        labels: arm -> its label, of the arms that are planned; names: of all arms of the study.
        outcome: the answer in a few words, for the index; the first judged claim sets it, or all of the study's claims.
    """

    def __init__(self, study: Study, results: Results, out: Path):
        self._as_written = study
        self.study = study = with_host(study, results)
        self.results = replace(results, about={**results.about, **study.design})
        self.out = Path(out)
        self.names = {arm.name: arm.label for arm in study.arms}
        self.labels = {name: label for name, label in self.names.items() if name in results.about["arms"]}
        self.outcome = ""
        self._answers: list[str] = []
        self._summaries: list[str] = []
        self._first = Blocks()
        self._own: list[Details] = []
        self._judgements: list[Judgement] = []

    def judge(
        self,
        declared: Sequence[Contrast],
        results: Results | None = None,
        names: Mapping[str, str] | None = None,
        claim: str | None = None,
        controls: Sequence[Contrast] | Sequence[Finding] | None = None,
        question: str = "",
    ) -> Verdict:
        """Judge a claim, and add its answer to the page.

        Args:
            declared: contrasts with their conditions, the claim's and others that are listed beside them.
            results: what they are judged by; the page's own where None.
            names: arm -> label in these results; the study's where None.
            claim: the claim to judge; that of the study's primary contrast where None.
            controls: positive controls, to be measured in the same results and conditions, or measured already; the
                study's where None.
            question: the id of the question, where a page answers several.
        """
        results, names = results or self.results, names or self.names
        judged = family(declared, self._primary_claim(declared) if claim is None else claim)
        controls = self.study.control if controls is None else controls
        verdict = judge(results, judged, measure_controls(results, judged, controls))
        first, *others = answer(verdict, results, names)
        first = f"{question}: {first}" if question else first
        self.say(first, *others, summary=first)
        self.outcome = self.outcome or verdict.outcome
        self._judgements.append(Judgement((verdict,), results, names, declared, question))
        return verdict

    def judge_claims(
        self,
        results: Results | None = None,
        names: Mapping[str, str] | None = None,
        beside: Sequence[Contrast] = (),
        claims: Sequence[Claim] | None = None,
        is_said: bool = True,
    ) -> tuple[Verdict, ...]:
        """Judge the study's claims, and answer each of them in one sentence.

        Args:
            results: what they are judged by; the page's own where None.
            names: arm -> label in these results; the study's where None.
            beside: further contrasts that are listed and not judged; those of a claim are listed once.
            claims: those of the study's claims that hold for the page's images; None: all about arms that are planned.
            is_said: False for a study that answers them in words of its own.
        """
        results, names = results or self.results, names or self.names
        if claims is None:
            claims = planned_claims(self.study.claims, results, [arm.name for arm in self.study.arms])
        verdicts, lines = judge_claims(self.study, results, claims), []
        for claim, verdict in zip(claims, verdicts, strict=True):
            asked = f"*{claim.question}* " if claim.question else ""
            lines.append(f"{asked}{sentence(verdict, results, names)}")
        if is_said:
            self.say("\n".join(f"- {line}" for line in lines), summary=" ".join(lines))
        counts = Counter(verdict.outcome for verdict in verdicts)
        self.outcome = self.outcome or ", ".join(
            outcome if len(counts) == 1 else f"{count} {outcome}" for outcome, count in counts.items()
        )
        declared = [finding.contrast for verdict in verdicts for finding in verdict.findings]
        compared = [(each.treatment, each.control, each.metric, each.conditions) for each in declared]
        others = [
            each for each in beside if (each.treatment, each.control, each.metric, each.conditions) not in compared
        ]
        self._judgements.append(Judgement(verdicts, results, names, [*declared, *others]))
        return verdicts

    def _compared(self) -> dict[str, PairedResult]:
        """What each judged contrast compares and in which condition -> its paired result."""
        found = {}
        for judgement in self._judgements:
            for finding in (each for verdict in judgement.verdicts for each in verdict.findings):
                setting = words(finding.contrast.conditions)
                name = versus(finding.contrast, judgement.names)
                found[f"{name} ({setting})" if setting else name] = finding.gain
        return found

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of all claims that were judged so far, in the page's order."""
        return tuple(verdict for judgement in self._judgements for verdict in judgement.verdicts)

    def _primary_claim(self, declared: Sequence[Contrast]) -> str:
        """The claim of the study's primary contrast among those declared, by the host's name or by MoCo's."""
        claims = {
            contrast.claim
            for contrast in (*self.study.contrasts, *self._as_written.contrasts)
            if contrast.name == self.study.primary
        }
        return next(contrast.claim for contrast in declared if contrast.claim in claims)

    def say(self, *paragraphs: str, summary: str = "") -> None:
        """Add to the answer; ``summary`` goes to the index of the reports."""
        self._answers += paragraphs
        self._summaries += [summary] if summary else []

    def show(self, table: Table, caption: str, picture: Picture | None) -> None:
        """The table and the figure of the first screen."""
        self._first.table(table, caption)
        self._first.figure(picture)

    def section(self, title: str) -> Blocks:
        """A section of the study's own, collapsed."""
        self._own.append(Details(title))
        return self._own[-1]

    def page(self) -> Page:
        """The whole page."""
        study, results, about = self.study, self.results, self.results.about
        page = Page(study.title)
        if not about["meaningful"]:
            page.text(
                f"> **This page only tests the wiring.** It comes from the `{about['tier']}` tier: a few steps of a "
                "tiny network on a few images. Its numbers and its answer mean nothing."
            )
        page.text(
            f"> **{' '.join(['Question', ', '.join(study.question_ids)]).strip()}.** {study.question}", *self._answers
        )
        page.text(completeness(results), machines(results, self._compared()))
        page.blocks += self._first.blocks
        for judgement in self._judgements:
            page.text(sensitivity(joined(judgement.verdicts), judgement.results, judgement.names, judgement.question))
        page.text(calibration.line(about, self.out))
        sections.arms(page.details("Arms"), study, results)
        page.blocks += self._own
        for judgement in self._judgements:
            question = f" ({judgement.question})" if judgement.question else ""
            contrasts(page.details(f"Contrasts{question}"), judgement)
        rest = Details("Further protocols")
        if sections.further(rest, results, self.names, page.metrics | {"n_train", "n_test"}):
            rest.text("Recorded numbers that no section above shows.")
            page.blocks.append(rest)
        shown = [name for name in results.metrics if name in page.metrics]
        sections.how_measured(page.details("How it was measured"), study, results, shown)
        if declared := sections.deviations(study, results):
            page.details("Deviations from the papers").items(declared)
        if about["base"]:
            sections.cost(page.details("Cost"), results, self.labels)
        sections.provenance(page.details("Provenance"), results)
        return page

    def answered(self) -> Results:
        """The results with the outcome and the answer, for the index."""
        about = {**self.results.about, "outcome": self.outcome, "answer": " ".join(self._summaries)}
        return replace(self.results, about=about)


def publish(study: Study, results: Results, out: Path) -> Path:
    """Write a study's figures, page and records; returns the path of the page."""
    out = Path(out)
    report = Report(study, results, out)
    study.sections(report)
    path = report.page().write(out / f"{results.page}.md")
    save(report.answered(), out)
    return path


def with_host(study: Study, results: Results) -> Study:
    """The study with the host of the command line in the place of MoCo, in the words of arms and claims."""
    reference = results.about["reference"]
    if reference is None or "method" in study.arm(reference).overrides:
        return study
    host = results.about["base"]["method"]["_target_"].rpartition(".")[2]

    def named(text: str) -> str:
        return text if host == DEFAULT_HOST else text.replace(DEFAULT_HOST, host)

    arms = [
        replace(arm, label=named(arm.label), shares=named(arm.shares), differs=named(arm.differs)) for arm in study.arms
    ]
    contrasts, control = (
        tuple(replace(contrast, claim=named(contrast.claim)) for contrast in group)
        for group in (study.contrasts, study.control)
    )
    claims = tuple(
        replace(
            claim,
            text=named(claim.text),
            question=named(claim.question),
            contrasts=tuple(replace(contrast, claim=named(contrast.claim)) for contrast in claim.contrasts),
        )
        for claim in study.claims
    )
    return replace(study, arms=tuple(arms), contrasts=contrasts, control=control, claims=claims)

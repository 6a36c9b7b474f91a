"""The claims of a committed page, judged again from its records: nothing is trained, and torch is not needed.

The study's own ``sections`` judges them, up to its first table; what follows only draws. An answer that is not, word
for word, in the page's own is not used: then the declarations of the study have changed since the page was written, and
the page's answer stands as it was written.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scd.errors import DataError
from studies.suite.analysis import notation
from studies.suite.analysis.answers import answer, sensitivity, sentence
from studies.suite.analysis.comparison import compare
from studies.suite.analysis.results import FOLDER, Results, load, read_about
from studies.suite.analysis.statistics import least_margin
from studies.suite.analysis.verdict import Finding, Verdict, find, joined, outcome_of
from studies.suite.pages.markdown import in_line
from studies.suite.pages.publish import Report
from studies.suite.planning.command_line import load_study, study_names
from studies.suite.planning.staleness import is_page_stale
from studies.suite.planning.study import Claim, Contrast, Study


@dataclass(frozen=True)
class Part:
    """The answer to one claim of a page.

    Attributes:
        title: of the claim; as the study declares it, whatever the host; text: the answer, as on the page, in markdown.
        verdict: with its findings; results, labels: what it was judged by.
    """

    title: str
    text: str
    verdict: Verdict
    results: Results
    labels: Mapping[str, str]

    @property
    def outcome(self) -> str:
        """ "supported", "contradicted", "uninformative" or "not resolved"."""
        return self.verdict.outcome


@dataclass(frozen=True)
class Reading:
    """A page, read again.

    Attributes:
        name: of the page; about: its JSON file; stale: whether its numbers come from other code than that on disk.
        parts: its claims; empty where it has none, or cannot be judged again.
        contrasts: all that the page lists, each with its conditions, and what it is judged by.
        reason: why the claims were not judged again, though the study has some.
        out: the folder of the pages.
    """

    name: str
    about: dict[str, Any]
    stale: bool
    parts: tuple[Part, ...] = ()
    contrasts: tuple[tuple[Contrast, Results, Mapping[str, str]], ...] = ()
    reason: str = ""
    out: Path = Path()

    @property
    def results(self) -> Results:
        """The records of the page."""
        return load(self.out, self.name)

    @property
    def study(self) -> str:
        """Name of the study; pages of the oldest version do not say it."""
        return self.about.get("study", self.name.replace("-", "_"))

    @property
    def is_default(self) -> bool:
        """Whether the page is that of the study's default command."""
        return self.name == self.study.replace("_", "-")

    def difference(self, treatment: str, control: str) -> tuple[Finding, Results] | None:
        """What the page says of two arms: a contrast that it lists, or else one in the place of its first contrast.

        None where no pair of seeds has finished in both.
        """
        for contrast, results, _ in self.contrasts:
            if (contrast.treatment, contrast.control) == (treatment, control):
                finding = find(results, contrast)
                if finding.gain.n:
                    return finding, results
        for contrast, results, _ in self.contrasts[:1]:
            if not {treatment, control} <= set(results.runs["arm"]):
                break
            gain = compare(results, treatment, control, contrast.metric, contrast.looks, **contrast.conditions)
            if gain.n:
                gain = gain.negated() if results.metric(contrast.metric).better == "lower" else gain
                known = least_margin(gain.n, gain.spread, alpha=2 * gain.alpha, df=gain.df) if gain.spread else None
                here = Contrast("", treatment, control, contrast.metric, contrast.sesoi, "", contrast.conditions)
                return Finding(here, gain, outcome_of(gain, contrast.sesoi), known), results
        return None


class _Judged(Exception):
    """The study has judged its claims; what follows only draws."""


class _Rereading(Report):
    """A page under construction that keeps its claims, and stops before its tables and figures."""

    def __init__(self, study: Study, results: Results, out: Path):
        super().__init__(study, results, out)
        self.parts: list[Part] = []
        self.contrasts: list[tuple[Contrast, Results, Mapping[str, str]]] = []

    def judge_claims(
        self,
        results: Results | None = None,
        names: Mapping[str, str] | None = None,
        beside: Sequence[Contrast] = (),
        claims: Sequence[Claim] | None = None,
        is_said: bool = True,
    ) -> tuple[Verdict, ...]:
        """As the page's; ends the construction."""
        verdicts = super().judge_claims(results, names, beside, claims, is_said)
        results, names = results or self.results, names or self.names
        pairs = zip(self.study.claims, self._as_written.claims, strict=True)
        written = {claim.question: other.question for claim, other in pairs}  # by MoCo's name, whatever the host
        for claim, verdict in zip(self.study.claims if claims is None else claims, verdicts, strict=True):
            if is_said:
                title = written.get(claim.question, claim.question)
                self.parts.append(Part(title, sentence(verdict, results, names), verdict, results, names))
        self._keep(verdicts, results, names, beside)
        raise _Judged

    def judge(self, declared, results=None, names=None, claim=None, controls=None, question="") -> Verdict:
        """As the page's."""
        verdict = super().judge(declared, results, names, claim, controls, question)
        results, names = results or self.results, names or self.names
        self.parts.append(Part(question, answer(verdict, results, names)[0], verdict, results, names))
        self._keep((verdict,), results, names, declared)
        return verdict

    def show(self, *arguments: Any) -> None:
        """The first table follows the claims."""
        raise _Judged

    def section(self, title: str) -> None:
        """So do the sections."""
        raise _Judged

    def _keep(self, verdicts, results, names, beside) -> None:
        findings = [each for verdict in verdicts for each in (*verdict.findings, *verdict.controls)]
        known = [*(each.contrast for each in findings), *beside]
        self.contrasts += [(each, results, names) for each in known if {each.treatment, each.control} <= set(names)]


def read_pages(out: Path) -> dict[str, Reading]:
    """The pages under ``out`` whose numbers mean something, by name; those that cannot be read are left out."""
    found = {}
    for path in sorted((Path(out) / FOLDER).glob("*.json")):
        try:
            about = read_about(path)
        except DataError:  # the index says so
            continue
        if about.get("meaningful", True):
            csv = path.with_suffix(".csv")
            states = [(file.stat().st_mtime_ns, file.stat().st_size) for file in (path, csv) if file.is_file()]
            reading = _reread(Path(out).absolute(), path.stem, tuple(states))
            found[path.stem] = Reading(path.stem, about, is_page_stale(about), out=Path(out), **reading)
    return found


@cache
def _reread(out: Path, name: str, states: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """The claims and contrasts of a page; kept for the life of the process, until one of its files changes."""
    about = read_about(out / FOLDER / f"{name}.json")
    if "metrics" not in about:
        return {"reason": "an older version of the suite wrote the page"}
    if about["study"] not in study_names():
        return {"reason": f"there is no study `{about['study']}` any more"}
    study = load_study(about["study"])
    if not (study.claims or study.contrasts):
        return {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = _Rereading(study, load(out, name), Path(folder))
            try:
                study.sections(report)
            except _Judged:
                pass
    except Exception as error:  # records of other declarations: the page's own answer is shown, with this reason
        why = in_line(f"{type(error).__name__}: {error}")
        return {"reason": f"its records do not fit the study as it is now ({why})"}
    if any(part.text not in about.get("answer", "") for part in report.parts):
        return {"reason": "the study's declarations have changed since the page was written"}
    return {"parts": tuple(report.parts), "contrasts": tuple(report.contrasts)}


# -------------------------------------------------------------------- words


def outcomes(parts: Sequence[Part]) -> str:
    """How many claims have each outcome: "1 supported, 2 not resolved"."""
    counts = Counter(part.outcome for part in parts)
    return ", ".join(outcome if len(parts) == 1 else f"{count} {outcome}" for outcome, count in counts.items())


def detectable(parts: Sequence[Part]) -> str:
    """The differences that these claims could have detected: "1 to 1.6 points in kNN top-1"; empty where unknown."""
    found: dict[str, list[float]] = {}
    definitions = {}
    for part in parts:
        for finding in part.verdict.findings:
            if finding.detectable is not None:
                found.setdefault(finding.contrast.metric, []).append(finding.detectable)
                definitions[finding.contrast.metric] = part.results.metric(finding.contrast.metric)
    words = []
    for name, values in found.items():
        low, high = (notation.size(definitions[name], value) for value in (min(values), max(values)))
        words.append(f"{high if low == high else f'{low.split()[0]} to {high}'} in {definitions[name].label}")
    return " and ".join(words)


def could_have_seen(parts: Sequence[Part]) -> str:
    """The page's paragraph about its positive controls and detectable differences, for some of its claims."""
    if not parts:
        return ""
    labels = {name: label for part in parts for name, label in part.labels.items()}
    text = sensitivity(joined([part.verdict for part in parts]), parts[0].results, labels)
    return text.removeprefix("**What this page could have seen.** ")

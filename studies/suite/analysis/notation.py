"""How a number is written: shares in percent, their differences in points, each with the interval that it has."""

from collections.abc import Sequence

from scd.evaluation.metric import SHARE, SHARE_DIFFERENCE, Metric
from studies.suite.analysis.statistics import PairedResult, estimate

MINUS = "−"
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def is_share(metric: Metric) -> bool:
    """Whether the metric is written in percent."""
    return metric.unit in (SHARE, SHARE_DIFFERENCE)


def heading(metric: Metric) -> str:
    """A metric's column heading with its unit."""
    if not is_share(metric):
        return metric.label
    return f"{metric.label} ({'points' if metric.unit == SHARE_DIFFERENCE else '%'})"


def unit_of_difference(metric: Metric) -> str:
    """The unit in which differences of a metric are written: percentage points for shares."""
    return "points" if is_share(metric) else ""


def scaled(metric: Metric, value: float) -> float:
    """A metric's value in the unit in which it is shown."""
    return 100 * value if is_share(metric) else value


def number(metric: Metric, value: float, signed: bool = False) -> str:
    """A value in a table: shares as percent with one decimal (differences two), counts without decimals."""
    shown = scaled(metric, value)
    if is_share(metric):
        text = f"{abs(shown):.2f}" if signed else f"{abs(shown):.1f}"
    else:
        text = f"{abs(shown):.2f}" if abs(shown) < 100 and shown != round(shown) else f"{abs(shown):,.0f}"
    return _signed(text, shown, signed)


def mean_cell(metric: Metric, values: Sequence[float], expected: int) -> str:
    """Mean ± half width of the 95 % t interval; a count below ``expected`` and a single value are stated."""
    summary = estimate(values)
    text = number(metric, summary.mean)
    if summary.half is None:
        return f"{text} (n=1, no interval)"
    if summary.half or is_share(metric):  # a count that is the same in all runs has no spread to write
        text += f" ± {number(metric, summary.half)}"
    return text if summary.n == expected else f"{text} (n={summary.n})"


def interval(metric: Metric, result: PairedResult) -> str:
    """The interval of a difference in a table."""
    if result.ci_low is None:
        return "(no interval)"
    return f"[{number(metric, result.ci_low, signed=True)}, {number(metric, result.ci_high, signed=True)}]"


def amount(metric: Metric, result: PairedResult, unit: bool = True) -> str:
    """A difference in a sentence: "3.3 points [0.3, 6.2]"; two decimals where the interval is narrower than a point."""
    known = result.ci_low is not None
    half = scaled(metric, result.ci_high - result.ci_low) / 2 if known else 1.0
    digits = 2 if half < 0.5 or not is_share(metric) else 1

    def shown(value: float) -> str:
        return _signed(f"{abs(scaled(metric, value)):.{digits}f}", value)

    words = [shown(result.mean), unit_of_difference(metric) if unit else ""]
    words += [f"[{shown(result.ci_low)}, {shown(result.ci_high)}]" if known else "(no interval)"]
    return " ".join(filter(None, words))


def size(metric: Metric, value: float) -> str:
    """A size without sign, with its unit: "4.2 points", "1 point"."""
    shown = scaled(metric, value)
    text = f"{shown:.2g}" if shown < 10 else f"{shown:.0f}"
    unit = unit_of_difference(metric)
    return " ".join(filter(None, [text, "point" if unit and text == "1" else unit]))


def p_value(p: float) -> str:
    """A p value with two digits, or "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def quantity(value: float) -> str:
    """A large number with its SI prefix: 24.3 G."""
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def _signed(text: str, value: float, plus: bool = False) -> str:
    """The text of a size with the sign of ``value``; zero has none."""
    if not float(text.replace(",", "")):
        return text
    return (MINUS if value < 0 else "+" if plus else "") + text

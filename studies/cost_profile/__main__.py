"""The command line: ``python -m studies.cost_profile [tier=cpu ...]`` counts, measures, and writes the page."""

import argparse
import json
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scd.errors import UsageError
from studies.suite.analysis.results import FOLDER, read_about
from studies.suite.execution import machine as environment
from studies.suite.execution.store import write_text

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = ROOT / "tests" / "benchmarks" / "profile_cost.py"
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
KEPT = ("machine_info", "commit_info", "benchmarks", "datetime", "version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 the measuring failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m studies.cost_profile",
        description="Counts what every method costs at the papers' scale, measures it on this machine, writes a page.",
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of what is measured: tier=gpu, ...")
    parser.add_argument("--out", default="reports", metavar="DIR", help="where the page is written (default: reports)")
    parser.add_argument("--count-only", action="store_true", help="no measuring: exact numbers, in a minute")
    parser.add_argument("--page-only", action="store_true", help="write the page again from its records")
    options = parser.parse_intermixed_args(arguments)
    try:
        return profile(options, shlex.join(["python", "-m", "studies.cost_profile", *arguments]))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the page is as it was", file=sys.stderr)
        return 130


def profile(options: argparse.Namespace, command: str) -> int:
    """Count, measure, write records, page and index."""
    from scd.installation import check_torchvision

    check_torchvision()
    from studies.cost_profile import page as pages
    from studies.suite.pages.index import write_index
    from studies.suite.planning.settings import resolve_settings

    settings = resolve_settings("multicrop", options.words)  # a wrong word is said before anything is counted
    out = Path(options.out)
    name = "cost-profile" if settings.tier == "cpu" else f"cost-profile-{settings.tier}"
    records, code = out / FOLDER / f"{name}.json", 0
    if options.page_only:
        evidence = read_about(records)
        evidence["answer"] = pages.answer(evidence["counted"], evidence["measured"])
    else:
        counted, curves = count()
        measured, why = [], "--count-only was given"
        if not options.count_only:
            measured, why = measure(tuple(options.words), out / "benchmarks" / f"{name}.json")
            code = 1 if why else 0
        evidence = assemble(name, settings, counted, curves, measured, why, command)
    out.mkdir(parents=True, exist_ok=True)
    records.parent.mkdir(exist_ok=True)
    write_text(records, json.dumps(evidence, indent=1) + "\n")
    path = pages.compose(evidence, out).write(out / f"{name}.md")
    write_index(out)
    print(path, file=sys.stderr)
    if code:
        print(f"not everything was measured: {why}", file=sys.stderr)
    return code


def count() -> tuple[dict[str, list], list]:
    """The counted rows by scale, and the counted curves; on all cores, in processes of their own."""
    from studies.cost_profile.arms import arms
    from studies.cost_profile.counted import CURVES, SCALES, count_arm, count_curve

    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        curves = [pool.submit(count_curve, curve) for curve in CURVES]
        rows = {scale: [pool.submit(count_arm, arm, words) for arm in arms()] for scale, (_, words) in SCALES.items()}
        waiting = [*curves, *(row for scale in rows.values() for row in scale)]
        for done in tqdm(as_completed(waiting), "counting", len(waiting), unit="", bar_format=BAR, disable=None):
            done.result()  # an error ends the counting here
    counted = {scale: [row.result() for row in scale_rows] for scale, scale_rows in rows.items()}
    return counted, [point for curve in curves for point in curve.result()]


def measure(words: tuple[str, ...], kept: Path) -> tuple[list[dict[str, Any]], str]:
    """The measured rows, and why there are none or not all; pytest-benchmark's JSON is kept for comparisons."""
    with tempfile.TemporaryDirectory(prefix="scd-cost-") as folder:
        raw = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", str(BENCHMARK), "--benchmark-only", f"--benchmark-json={raw}",
                   "--benchmark-disable-gc", "-v", "-p", "no:cacheprovider", f"--words={' '.join(words)}"]  # fmt: skip
        print("measuring: about six minutes on two cores; nothing else should run", file=sys.stderr)
        code, lines = _followed(command)
        print("".join(lines), file=sys.stderr)
        if not raw.is_file() or not raw.stat().st_size:
            last = [line.strip() for line in lines if line.strip()]
            return [], f"the benchmark wrote nothing ({last[-1] if last else f'exit code {code}'})"
        report = {key: value for key, value in json.loads(raw.read_text()).items() if key in KEPT}
    report["machine_info"].pop("node", None)  # the machine's name is nobody's business
    kept.parent.mkdir(parents=True, exist_ok=True)
    for benchmark in report["benchmarks"]:
        benchmark["stats"].pop("data", None)
    write_text(kept, json.dumps(report, indent=1) + "\n")
    why = "" if code == 0 else f"pytest ended with {code}, see above"
    return [benchmark["extra_info"] for benchmark in report["benchmarks"]], why


def _followed(command: list[str]) -> tuple[int, list[str]]:
    """Exit code and output of pytest, with a bar that follows the percentages in its lines."""
    lines = []
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with running, tqdm(total=100, desc="measuring", bar_format=BAR, disable=None) as bar:
        for line in running.stdout:
            lines.append(line)
            if done := re.search(r"\[ *(\d+)%\]$", line.rstrip()):
                bar.update(int(done[1]) - bar.n)
    return running.returncode, lines


def assemble(name, settings, counted, curves, measured, why, command) -> dict[str, Any]:
    """All that the page is made of, as plain values; the first keys are what the index reads of every page."""
    from studies.cost_profile import page as pages
    from studies.cost_profile.arms import arms
    from studies.cost_profile.counted import SCALES
    from studies.suite.planning.identity import code_fingerprint

    roots = ["scd.profiling.memory", "scd.profiling.parts", "scd.profiling.steptime", "studies.suite.execution.run",
             "baselines.byol", "baselines.densecl", "baselines.dino", "baselines.lewel", "baselines.moco",
             "baselines.slotcon", "scd.scd"]  # fmt: skip
    rows = [row for scale in SCALES for row in counted[scale]]
    about = {
        "page": name, "questions": ["R4-d"], "data": "none", "tier": settings.tier, "meaningful": settings.meaningful,
        "answer": pages.answer(counted, measured), "outcome": "measured" if measured else "counted", "seeds": [],
        "planned": len(rows), "done": sum("error" not in row for row in rows),
        "unit": f"methods × {len(SCALES)} backbones", "arms": [arm.name for arm in arms()],
        "fingerprint": code_fingerprint(roots), "roots": roots, "environments": [environment.describe(1)],
        "command": command, "not_measured": why,
    }  # fmt: skip
    return {**about, "counted": counted, "curves": curves, "measured": measured}


if __name__ == "__main__":
    sys.exit(main())

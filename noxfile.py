"""Entry points: `nox -l` lists the sessions, `nox -s study-multicrop -- seeds=5` answers one question.

PyTorch with CUDA takes 5.7 GB on disk, and nox gives every session an environment of its own. So one session,
`environment`, owns the only environment that holds it; the others require that session and run in its environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036 - nox itself runs on older ones
    sys.exit(f"the suite needs Python 3.11 or newer; nox runs here on {sys.version.split()[0]} ({sys.executable})")

nox.needs_version = ">=2026.4.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
FILES = sorted((ROOT / "studies").glob("[a-z]*.py"))
STUDIES = [path.stem for path in FILES if "\nSTUDY = " in path.read_text(encoding="utf-8")]
OWN_NAMES = {"cost_profile": "cost-profile"}  # sessions that are not called study-NAME
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@nox.session(default=False)
def environment(session: nox.Session) -> None:
    """Install the suite, editable, with what its tests need; every other session runs in this environment.

    The environment keeps the pyproject.toml that it was installed from; while that stays the same, nothing is asked of
    the package registry, so a study also starts without a network.
    """
    wanted, installed = ROOT / "pyproject.toml", session.env_dir / "installed-from.toml"
    if installed.is_file() and installed.read_bytes() == wanted.read_bytes():
        session.log("the environment is up to date; delete .nox to build it afresh")
        return
    session.install("pip", "-e", ".[tests]", env={"UV_COMPILE_BYTECODE": "1"})  # once here, or in every process
    installed.write_bytes(wanted.read_bytes())


def python(session: nox.Session) -> str:
    """The interpreter of the shared environment."""
    folder = session.cache_dir.parent.resolve() / "environment"
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def add_study(name: str) -> None:
    """Register the session of a study, `study-<name>`; its arguments are the study's own."""

    def study(session: nox.Session) -> None:
        session.run(python(session), "-m", "studies", name, *session.posargs, external=True)

    study.__doc__ = f"Run the study '{name}' and write its page; arguments: tier=cpu seeds=5 data=shapes|PATH ..."
    session_name = OWN_NAMES.get(name, f"study-{name.replace('_', '-')}")
    nox.session(study, name=session_name, venv_backend="none", requires=["environment"], default=False)


for study_name in STUDIES:
    add_study(study_name)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def export(session: nox.Session) -> None:
    """Write a run's backbone for other libraries, with a model card; arguments: RUN_FOLDER --naming timm."""
    session.run(python(session), "-m", "studies.export", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def replicate(session: nox.Session) -> None:
    """Run a committed page's first seeds again on this machine and compare; arguments: PAGE seeds=2 arms=moco,scd."""
    session.run(python(session), "-m", "studies.replicate", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def evaluate(session: nox.Session) -> None:
    """Score your own checkpoint; arguments: checkpoint=FILE backbone=resnet50 data=FOLDER supervised=FILE ..."""
    session.run(python(session), "-m", "studies.evaluate", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def answers(session: nox.Session) -> None:
    """Write every question with its answer from the committed records, as reports/README.md and as answers.html."""
    session.run(python(session), "-m", "studies.answers", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def maps(session: nox.Session) -> None:
    """Draw the maps of finished runs for pictures of your own; arguments: PICTURE_OR_FOLDER run=LATEST --out=FOLDER."""
    session.run(python(session), "-m", "studies.maps", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def status(session: nox.Session) -> None:
    """Show what is in the store, study by study, and its size; arguments: STUDY ... tier=gpu --store=FOLDER."""
    session.run(python(session), "-m", "studies.status", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def clean(session: nox.Session) -> None:
    """Show the runs that the code has outdated, and remove them after a yes; arguments: yes --store=FOLDER."""
    session.run(python(session), "-m", "studies.clean", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests in parallel; arguments go to pytest."""
    processes = str(max(2, min(8, os.cpu_count() or 2)))
    options = ["-q", "-n", processes, "--dist", "worksteal"]
    session.run(python(session), "-m", "pytest", *options, *session.posargs, env=ONE_THREAD, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def bench(session: nox.Session) -> None:
    """Measure speed against lightly, torchvision and bare compute; arguments go to pytest-benchmark."""
    session.run_install(python(session), "-m", "pip", "install", "-q", "-e", ".[bench]", external=True)
    options = ["-q", "-s", "-o", "python_files=bench_*.py", "--benchmark-only"]
    session.run(python(session), "-m", "pytest", "tests/benchmarks", *options, *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs/html, warnings as errors; arguments: --out DIR."""
    wanted = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["docs"]
    session.run_install(python(session), "-m", "pip", "install", "-q", *wanted, external=True)  # nothing, where it is
    session.run(python(session), "-m", "docs.build", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def slurm(session: nox.Session) -> None:
    """Test the Slurm launcher on a Slurm of one machine; installs Debian's packages (root); arguments go to pytest."""
    if reason := no_slurm():
        session.skip(reason)
    options = [
        "-q",
        "-n",
        "4",
        "--dist",
        "worksteal",
        "-o",
        "python_files=slurm_*.py",
    ]  # each process has its own Slurm
    command = [python(session), "-m", "pytest", "tests/slurm", *options, *session.posargs]
    session.run(*command, env=ONE_THREAD, external=True)


def no_slurm() -> str:
    """Why there is no Slurm to test with, after trying to install it; empty where there is one."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    programs = ("munged", "slurmctld", "slurmd", "srun")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "Slurm's daemons need root"
    if all(shutil.which(name, path=path) for name in programs):
        return ""
    if shutil.which("apt-get") is None:
        return "Slurm is not installed, and there is no apt-get to install Debian's packages slurm-wlm and munge"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
        done = subprocess.run(["apt-get", "-qq", *words], env=environment, capture_output=True, text=True)
    if done.returncode == 0 and all(shutil.which(name, path=path) for name in programs):
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return f"Slurm cannot be installed here: apt-get {said[-1] if said else f'ended with {done.returncode}'}"


@nox.session
def lint(session: nox.Session) -> None:
    """Check style with ruff; arguments go to ruff (`-- --fix`)."""
    session.install("ruff>=0.14")
    session.run("ruff", "check", ".", *session.posargs)

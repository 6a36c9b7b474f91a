"""The command ``scd-suite``: the studies and their tools, by the same code as the sessions of nox in a clone."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from scd_suite import __version__, make_importable


class Command(NamedTuple):
    """A module whose ``main`` takes the command line's words, one line of help, and words that stand before them."""

    module: str
    text: str
    words: tuple[str, ...] = ()


COMMANDS = {
    "study": Command("studies.__main__", "run a study and write its page; without a name: list them"),
    "cost-profile": Command("studies.__main__", "the study of what SCD costs", ("cost_profile",)),
    "evaluate": Command("studies.evaluate", "evaluate weights of your own by the suite's protocols"),
    "maps": Command("studies.maps", "draw the saliency maps of a run for a folder of images"),
    "export": Command("studies.export", "a run's backbone for timm, torchvision, Hugging Face, …"),
    "status": Command("studies.status", "what is in the store: finished, running, failed, stale runs"),
    "clean": Command("studies.clean", "remove the runs whose code has changed since"),
    "answers": Command("studies.answers", "all questions with their answers, as markdown and as HTML"),
    "replicate": Command("studies.replicate", "run a page's first seeds again here, and compare"),
}
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"scd-suite {__version__}")
        return 0
    make_importable()
    command = COMMANDS.get(words[0])
    if command is None:
        return without_command(words)
    return run(command, words[1:])


def run(command: Command, words: Sequence[str]) -> int:
    """Call the module of a command, which is imported now."""
    return importlib.import_module(command.module).main([*command.words, *words])


def without_command(words: Sequence[str]) -> int:
    """A command line that starts with the name of a study, as in version 0.1; or the error for an unknown command."""
    from scd.errors import unknown
    from studies.suite.planning.command_line import study_names

    if words[0].replace("-", "_") in study_names():
        return run(COMMANDS["study"], words)
    print(f"error: {unknown('command', words[0], COMMANDS)}", file=sys.stderr)
    return EXIT_USAGE


def usage() -> str:
    """The help text: one line for each command."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.text}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: scd-suite COMMAND ...",
            "",
            "Answers the reviewers' questions about SCD by experiments.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help     this text; after a command: that of the command",
            "  --version      the version of the suite",
            "",
            "Runs go to the folder runs, pages to the folder reports, both in the folder",
            "where the command is given. First: scd-suite study multicrop --dry-run",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

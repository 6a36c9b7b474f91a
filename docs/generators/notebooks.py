"""A notebook as a page: its text, and its code as it stands."""

import json
from pathlib import Path


def page(notebook: Path) -> str:
    """The cells of a notebook as markdown, with a link to the file."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *others = parts
    note = f"This page is {{download}}`{notebook.name}`; a test runs it."
    return "\n\n".join([title, note, *others]) + "\n"

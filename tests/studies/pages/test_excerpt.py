"""The README has a copy of a page's first screen; its links lead somewhere."""

import pytest

from scd.errors import UsageError
from studies.suite.pages.excerpt import refresh

PAGE = "# Title\n\n> **Question**\n\nAnswer 1.\n\n![alt](figures/a.png) [x](https://x.org)\n\n<details>\nmore\n</details>\n"


def test_the_first_screen_is_copied_with_links_that_hold(tmp_path):
    (tmp_path / "reports").mkdir()
    page, readme = tmp_path / "reports" / "a.md", tmp_path / "README.md"
    page.write_text(PAGE)
    readme.write_text("before\n<!-- excerpt: reports/a.md -->\nold\n<!-- end of excerpt -->\nafter\n")
    refresh(readme)
    copied = "> **Question**\n\nAnswer 1.\n\n![alt](reports/figures/a.png) [x](https://x.org)"
    expected = f"before\n<!-- excerpt: reports/a.md -->\n{copied}\n<!-- end of excerpt -->\nafter\n"
    assert readme.read_text() == expected
    refresh(readme)  # again: nothing changes
    assert readme.read_text() == expected


def test_what_is_missing_is_named(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no mark")
    with pytest.raises(UsageError, match="README.md has no place for an excerpt"):
        refresh(readme)
    readme.write_text("<!-- excerpt: reports/none.md -->\n<!-- end of excerpt -->\n")
    with pytest.raises(UsageError, match="reports/none.md does not exist; run its study first"):
        refresh(readme)

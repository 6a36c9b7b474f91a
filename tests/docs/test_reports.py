"""Committed pages as pages of the documentation: links hold there."""

from docs.generators.reports import with_links, write_all

KNOWN = {"a.md", "README.md"}


def test_links_to_pages_files_and_what_is_missing(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.csv").write_text("x\n")
    text = "[a](a.md#x) [sheet](README.md) [b](b.md) [csv](records/a.csv) [folder](records/) [web](https://x.org/b.md)"
    expected = "[a](a.md#x) [sheet](index.md) b [csv](records/a.csv) folder [web](https://x.org/b.md)"
    assert with_links(text, tmp_path, KNOWN) == expected
    assert with_links("![A figure.](figures/none.png)", tmp_path, KNOWN) == "*(figure not committed: A figure.)*"


def test_every_page_is_copied_and_listed(tmp_path):
    reports, out = tmp_path / "reports", tmp_path / "out"
    (reports / "records").mkdir(parents=True)
    (reports / "figures").mkdir()
    (reports / "figures" / "f.png").write_bytes(b"png")
    (reports / "README.md").write_text("# Sheet\n\n[a](a.md)\n")
    (reports / "a.md").write_text("# A\n\n![f](figures/f.png)\n")
    assert write_all(out, reports) == ["a"]
    assert (out / "reports" / "index.md").read_text().endswith("```{toctree}\n:hidden:\n\na\n```\n")
    assert (out / "reports" / "figures" / "f.png").read_bytes() == b"png"
    assert (out / "reports" / "a.md").read_text() == "# A\n\n![f](figures/f.png)\n"

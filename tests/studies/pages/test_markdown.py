"""The markdown writer: blocks, collapsed parts, and the limit of what stands open."""

import pandas

from studies.suite.analysis.tables import Table
from studies.suite.pages.markdown import OPEN_LINES, Page, Picture, markdown_table, open_lines


def table(rows=1, **options):
    return Table(pandas.DataFrame({"arm": [f"arm {row}" for row in range(rows)]}), **options)


def test_a_table_survives_bars_and_line_ends():
    text = markdown_table(pandas.DataFrame({"arm": ["a | b\nc"], "value": ["−1.0"]}))
    assert text.splitlines()[-1].startswith("| a \\| b c |") and "-:|" in text.splitlines()[1]


def test_blocks_in_their_order(tmp_path):
    page = Page("Title")
    page.text("one", "")
    page.items({"Seeds": "3"})
    page.table(table(notes=["<sup>a</sup> why.", "<sup>b</sup> because."]), "caption")
    page.figure(Picture("figures/a b.png", "what it shows"))
    page.figure(None)
    more = page.details("More")
    more.text("inside")
    more.table(table())
    more.code("a: 1")
    page.text("after")
    text = page.write(tmp_path / "deep" / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n\none\n\n- **Seeds:** 3\n\n| arm") and text.endswith("</details>\n\nafter\n")
    assert "<sup>a</sup> why.<br>\n<sup>b</sup> because.\n\ncaption" in text
    assert "![what it shows](figures/a%20b.png)\n\n*what it shows*" in text
    assert "<details>\n<summary><b>More</b></summary>\n\ninside\n\n| arm" in text  # a table needs the empty line
    assert "```yaml\na: 1\n```" in text


def test_metrics_of_collapsed_tables_count_as_shown():
    page = Page("Title")
    page.table(table(metrics=("top1",)))
    page.details("More").details("Even more").table(table(metrics=("iou",)))
    assert page.metrics == {"top1", "iou"}


def test_only_lines_outside_of_details_are_open():
    page = Page("Title")
    outer = page.details("More")
    outer.table(table(rows=500))
    outer.details("Inside").text("deep")
    page.text("open")
    assert open_lines(page.markdown) == 4  # the title, two empty lines, the text
    assert "deep" in page.markdown


def test_what_does_not_fit_goes_to_a_file_of_details(tmp_path):
    page = Page("Title")
    page.text("the answer")
    page.table(table(rows=20), "small")
    page.table(table(rows=200), "large")
    page.details("More").text("inside")
    path = page.write(tmp_path / "page.md")
    text = path.read_text(encoding="utf-8")
    assert open_lines(text) <= OPEN_LINES and "the answer" in text and "| arm 19 |" in text and "inside" in text
    assert "[Part 1 of the details](details/page.md#part-1)" in text
    moved = (tmp_path / "details" / "page.md").read_text(encoding="utf-8")
    assert moved.startswith("# Title: details\n\n## Part 1\n\n| arm") and "| arm 199 |" in moved
    short = Page("Title")
    short.text("now it fits")
    short.write(path)
    assert not (tmp_path / "details" / "page.md").exists()


def test_a_page_of_many_short_paragraphs_is_written_as_it_is(tmp_path):
    page = Page("Title")
    page.text(*["one line"] * 200)
    assert page.write(tmp_path / "page.md").read_text(encoding="utf-8").count("one line") == 200

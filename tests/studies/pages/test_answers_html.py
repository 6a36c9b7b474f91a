"""The HTML form of the answer sheet: one file, well formed, without external resources, and sortable in a browser."""

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from answer_pages import save_page

from studies import answers
from studies.suite.pages.answers_html import first_figure, inline, write_html
from studies.suite.pages.questions import QUESTIONS

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
PAGE = """# LEWEL

**Supported:** yes.

![First <b>figure</b> of "points".](figures/lewel-a%20b.png)

*First figure.*

Photographs: credit of the first, CC BY 2.0.

![Second figure.](figures/lewel-second.png)

*Second figure.*

Photographs: credit of the second.
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with one page and its figure."""
    folder = tmp_path_factory.mktemp("reports")
    save_page(folder, "lewel", {"scd": 0.05, "oracle": 0.08})
    (folder / "lewel.md").write_text(PAGE, encoding="utf-8")
    (folder / "figures").mkdir()
    (folder / "figures" / "lewel-a b.png").write_bytes(PIXEL)
    return folder


@pytest.fixture(scope="module")
def page(out):
    """The HTML file of that folder."""
    return write_html(out)


class Reader(HTMLParser):
    """Elements with their attributes; text inside tags that are closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element, line {self.getpos()[0]}"


@pytest.fixture(scope="module")
def read(page):
    """The file, parsed."""
    return Reader(page.read_text(encoding="utf-8"))


# -------------------------------------------------------------------- the file


def test_tags_are_balanced_and_ids_are_unique(read):
    assert not read.open
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and {question.id for question in QUESTIONS} <= set(ids)
    inside = {attributes["href"][1:] for tag, attributes in read.elements if attributes.get("href", "").startswith("#")}
    assert inside <= set(ids)


def test_nothing_is_loaded_from_elsewhere(page, read):
    loading = {"link", "iframe", "object", "embed", "video", "audio", "source", "base"}
    assert not loading & {tag for tag, _ in read.elements}
    for tag, attributes in read.elements:
        assert tag != "script" or not attributes
        assert "srcset" not in attributes and "style" not in attributes
        assert "src" not in attributes or attributes["src"].startswith("data:image/png;base64,")
        assert not attributes.get("href", "").startswith(("javascript:", "data:", "//"))
    text = page.read_text(encoding="utf-8")
    assert "@import" not in text and "url(" not in text and "fetch(" not in text


def test_the_file_is_readable_by_everyone(read):
    assert ("html", {"lang": "en"}) in read.elements
    assert any(attributes.get("name") == "viewport" for tag, attributes in read.elements if tag == "meta")
    assert all(attributes["alt"] for tag, attributes in read.elements if tag == "img")
    heads = [attributes for tag, attributes in read.elements if tag == "th"]
    assert heads and all(attributes["scope"] in ("col", "row") for attributes in heads)
    tables = sum(tag == "table" for tag, _ in read.elements)
    assert tables == 3 == sum(tag == "caption" for tag, _ in read.elements)


def test_both_colour_schemes_are_declared(page):
    assert "@media (prefers-color-scheme: dark)" in page.read_text(encoding="utf-8")


def test_the_first_figure_of_a_page_is_shown_once_with_its_credit(page, read):
    text = page.read_text(encoding="utf-8")
    (image,) = [attributes for tag, attributes in read.elements if tag == "img"]
    assert base64.b64decode(image["src"].partition(",")[2]) == PIXEL
    assert image["alt"] == 'First <b>figure</b> of "points".'
    assert "credit of the first, CC BY 2.0." in text.split("</figcaption>")[0].split("<figcaption>")[1]
    assert "credit of the second" not in text
    assert text.index('<figure id="figure-lewel">') < text.index('<a href="#figure-lewel">')  # R2-a, then R2-c


def test_a_page_without_a_figure_has_none(tmp_path):
    assert first_figure(tmp_path / "none.md", "a") is None
    (tmp_path / "page.md").write_text("![A plot.](figures/gone.png)\n", encoding="utf-8")
    assert first_figure(tmp_path / "page.md", "a") is None


def test_questions_without_a_page_say_so(page):
    text = page.read_text(encoding="utf-8")
    article = text.split('<article id="R4-d">')[1].split("</article>")[0]
    assert (
        "No page yet: study <code>cost_profile</code> has not been run (<code>nox -s cost-profile</code>)." in article
    )
    assert "<figure" not in article and "<details" not in article


# -------------------------------------------------------------------- markdown in a line


@pytest.mark.parametrize(
    "markdown, expected",
    [
        ("a < b & c", "a &lt; b &amp; c"),
        ("**bold** and *italic*", "<strong>bold</strong> and <em>italic</em>"),
        ("`a*b*c <d>` *e*", "<code>a*b*c &lt;d&gt;</code> <em>e</em>"),
        ("`` a ` b ``", "<code>a ` b</code>"),
        ("[`p`](a%20b.md#c) (**stale**)", '<a href="a%20b.md#c"><code>p</code></a> (<strong>stale</strong>)'),
        ("[x](javascript:alert)", "x"),
        ("–<sup>a</sup>", "–<sup>a</sup>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a\\_b \\| c", "a_b | c"),
        ("3 * 4 * 5", "3 * 4 * 5"),
    ],
)
def test_a_line_of_markdown(markdown, expected):
    assert inline(markdown) == expected


# -------------------------------------------------------------------- the command


def test_the_command_writes_both_forms(out, capsys):
    assert answers.main(["--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "README.md"), str(out / "answers.html")]
    assert "### R5-e" in (out / "README.md").read_text(encoding="utf-8")


def test_the_command_needs_a_folder(tmp_path, capsys):
    assert answers.main(["--out", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


# -------------------------------------------------------------------- a real browser


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window; skips where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser to open the file with: none of {', '.join(BROWSERS)} is installed")
    return found


def opened(browser, path, profile):
    """The document after its scripts, as the browser writes it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def column(dom, table, place):
    """The text of a column, and how its head says that it is sorted."""
    inside = dom.split(f'<table id="{table}">')[1].split("</table>")[0]
    head = re.findall(r'<th scope="col" aria-sort="(\w+)">', inside)[place]
    rows = re.findall(r"<tr>(.*?)</tr>", inside.split("<tbody>")[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)[place] for row in rows]
    return [re.sub(r"<[^>]*>", "", cell) for cell in cells], head


CLICKED = """
<script>
const table = document.querySelector("#pages");
table.tBodies[0].innerHTML = ["\\u22122.5 points", "\\u2013", "10", "9 of 10", "b", "a"].map(
  text => `<tr><th scope="row">${text}</th></tr>`).join("");
const head = table.querySelector("thead button");
for (let count = 0; count < CLICKS; count++) head.click();
</script>
"""


def test_a_browser_opens_the_file_and_sorts_its_tables(browser, page, tmp_path):
    dom = opened(browser, page, tmp_path / "profile")
    assert column(dom, "questions", 0) == ([question.id for question in QUESTIONS], "none")
    text, ascending = page.read_text(encoding="utf-8"), ["−2.5 points", "9 of 10", "10", "a", "b", "–"]
    for clicks, expected in ((1, (ascending, "ascending")), (2, (ascending[::-1], "descending"))):
        clicked = tmp_path / f"{clicks}.html"
        script = CLICKED.replace("CLICKS", str(clicks))
        clicked.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
        assert column(opened(browser, clicked, tmp_path / "profile"), "pages", 0) == expected

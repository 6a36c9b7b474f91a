"""The contact sheet: one file without external resources, every panel with its caption, and a browser that opens it."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from studies.suite.pages.contact_sheet import NAME, entry, source_of, write_sheet
from studies.suite.pages.picture_maps import Panel, palette

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NAMES = ("a b.jpg", "<i>&.png")


class Elements(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.elements, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheet")
    shown = []
    for name in NAMES:
        image = np.full((20, 30, 3), 200, np.uint8)
        panels = [
            Panel("Picture", ("30 x 20 px",), image, "without training"),
            Panel("SCD", ("run 0123", "supervision: none", "values 0.10 to 0.90"), np.full((20, 30), 0.5), "0123"),
            Panel("TokenCut, SCD", ("too many",), None, "0123"),
        ]
        shown.append(entry(name, f"{name}.png", ("30 x 20 px",), (30, 20), panels))
    return write_sheet(folder, shown, ["a <note>"], ["'x.jpg': no picture"])


@pytest.fixture(scope="module")
def read(sheet):
    parsed = Elements()
    parsed.feed(sheet.read_text(encoding="utf-8"))
    return parsed


def test_the_sheet_is_one_file(sheet, read):
    assert sheet.name == NAME
    sources = [attributes["src"] for tag, attributes in read.elements if tag == "img"]
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"link", "iframe", "object"}
    assert not [attributes for tag, attributes in read.elements if tag == "script" and "src" in attributes]
    text = sheet.read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//[a-z]", text.replace("data:", ""))


def test_every_panel_has_its_caption_and_what_failed_is_named(read):
    for words in ("SCD", "run 0123", "supervision: none", "values 0.10 to 0.90", "too many", "no map", "a <note>"):
        assert words in read.text
    assert "Not drawn" in read.text and "'x.jpg': no picture" in read.text
    alts = [attributes["alt"] for tag, attributes in read.elements if tag == "img"]
    assert alts == [f"{title}, {name}" for name in NAMES for title in ("Picture", "SCD")]
    links = [attributes["href"] for tag, attributes in read.elements if tag == "a"]
    assert "a%20b.jpg.png" in links and "#picture-2" in links
    assert "i" not in {tag for tag, _ in read.elements}  # names are escaped


def test_maps_keep_their_colours_exactly():
    values = np.linspace(0, 1, 60).reshape(6, 10)
    data = base64.b64decode(source_of(values).partition(",")[2])
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(drawn, palette()[np.round(values * 255).astype(int)])
    picture = source_of(np.zeros((2, 2, 3), np.uint8))
    assert picture.startswith("data:image/jpeg;base64,")


def test_a_sheet_without_failures_has_no_such_part(tmp_path):
    shown = [entry("a", "a.png", (), (3, 2), [Panel("Picture", (), np.zeros((2, 3, 3), np.uint8), "g")])]
    text = write_sheet(tmp_path, shown, [], []).read_text(encoding="utf-8")
    assert "Not drawn" not in text and "Maps of 1 picture<" in text


# -------------------------------------------------------------------- a real browser

MOVED = """
<script>
slider.value = 30;
slider.dispatchEvent(new Event("input"));
const map = document.querySelector(".map"), box = map.parentElement;
document.body.dataset.opacity = getComputedStyle(map).opacity;
document.body.dataset.behind = box.style.backgroundImage.slice(0, 26);
document.body.dataset.said = document.querySelector("output").value;
document.body.dataset.wide = map.naturalWidth + "x" + map.naturalHeight;
</script>
"""


def test_a_browser_shows_the_picture_through_the_maps(sheet, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser to open the file with: none of {', '.join(BROWSERS)} is installed")
    moved = tmp_path / "moved.html"
    moved.write_text(sheet.read_text(encoding="utf-8").replace("</body>", f"{MOVED}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([browser, *options, moved.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    (body,) = re.findall(r"<body[^>]*>", done.stdout)
    assert 'data-opacity="0.7"' in body and 'data-said="30 %"' in body
    assert "data:image/jpeg" in body and 'data-wide="30x20"' in body

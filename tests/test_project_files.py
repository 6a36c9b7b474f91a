"""CITATION.cff, CHANGELOG.md and CONTRIBUTING.md: valid, of the version in the code, with paths that exist."""

import datetime
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from scd_suite import __version__

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
# Of the schema of the Citation File Format 1.2.0: required keys, all keys, those of an entity and those of a person.
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = REQUIRED | {"abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license",
                      "license-url", "preferred-citation", "references", "repository", "repository-artifact",
                      "repository-code", "type", "url", "version"}  # fmt: skip
ENTITY = {"name", "address", "alias", "city", "country", "date-end", "date-start", "email", "fax", "location", "orcid",
          "post-code", "region", "tel", "website"}  # fmt: skip
PERSON = {"address", "affiliation", "alias", "city", "country", "email", "family-names", "fax", "given-names",
          "name-particle", "name-suffix", "orcid", "post-code", "region", "tel", "website"}  # fmt: skip


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def problems(citation: dict) -> list[str]:
    """What the schema of the Citation File Format does not allow."""
    found = [f"no {key}" for key in REQUIRED - citation.keys()] + [
        f"unknown {key}" for key in citation.keys() - ALLOWED
    ]
    found += [key for key in ("cff-version", "message", "title") if not isinstance(citation.get(key), str)]
    authors = citation.get("authors") or []
    for author in authors:
        if not ((author.keys() <= ENTITY and "name" in author) or (author and author.keys() <= PERSON)):
            found.append(f"author {author}")
    if not authors:
        found.append("authors are empty")
    if citation.get("type", "software") not in ("software", "dataset"):
        found.append("type")
    words = citation.get("keywords", ["one"])
    if not words or len(set(words)) < len(words) or not all(isinstance(word, str) for word in words):
        found.append("keywords")
    return found


def test_the_citation_file_is_valid_and_agrees_with_the_project():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert problems(citation) == []
    assert citation["cff-version"] == "1.2.0" and "version" not in citation  # the version stands in scd_suite alone
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert set(citation["keywords"]) == set(project["keywords"])


@pytest.mark.parametrize(
    "changes",
    [{"message": None}, {"authors": []}, {"authors": [{"name": "a", "given-names": "b"}]}, {"type": "paper"},
     {"keywords": ["a", "a"]}, {"licence": "MIT"}, {"cff-version": 1.2}],
)  # fmt: skip
def test_a_citation_file_that_is_not_valid_is_found(changes):
    changed = {**yaml.safe_load(read("CITATION.cff")), **changes}
    assert problems({key: value for key, value in changed.items() if value is not None})


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = read("CHANGELOG.md")
    assert text.startswith("# Changelog\n") and "keepachangelog.com" in text and "semver.org" in text
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    found = [
        re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", head) for head in heads if "Unrel" not in head
    ]
    assert found and all(found)
    numbers = [tuple(int(part) for part in match.groups()[:3]) for match in found]
    dates = [datetime.date.fromisoformat(match[4]) for match in found]
    assert numbers == sorted(set(numbers), reverse=True) and dates == sorted(dates, reverse=True)
    assert ".".join(map(str, numbers[0])) == __version__
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= set(GROUPS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "README.md"])
def test_paths_in_the_documents_exist(name):
    text = read(name)
    paths = [path for path in re.findall(r"\]\(([^)#]+)", text) if not path.startswith("http")]
    if name == "CONTRIBUTING.md":
        quoted = re.findall(r"`((?:tests|studies|scd|baselines|reports)/[\w./]+)`", text)
        assert len(quoted) > 10
        paths += [path.replace("NAME", "_") for path in quoted if "NAME" not in path]
        paths += [str(Path(path).parent) for path in quoted if "NAME" in path]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_guide_names_the_six_things_to_add():
    table = read("CONTRIBUTING.md").partition("## Six things to add")[2].partition("\n## ")[0]
    for thing in ("method", "study", "protocol", "map source", "data format", "annotator"):
        assert re.search(rf"^\| an? {thing} \| `", table, re.MULTILINE), thing
    groups = re.findall(r"`studies/conf/(\w+)/NAME.yaml`", table)
    assert set(groups) == {"method", "study", "protocol", "map", "data", "annotator"}
    assert all((ROOT / "studies" / "conf" / group).is_dir() for group in groups)

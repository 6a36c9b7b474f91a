"""The template of the answer sheet's HTML file; a module, so that packages have it without further files."""

TEMPLATE = """\
{% macro table(frame, name, caption) %}
<div class="wide">
<table id="{{ name }}">
<caption><span>{{ caption | md }}</span></caption>
<thead><tr>
{% for column in frame.columns %}
<th scope="col" aria-sort="none"><button type="button">{{ column }}</button></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in frame.itertuples(index=False, name=None) %}
<tr>{% for cell in row %}
{% if loop.first %}<th scope="row">{{ cell | md }}</th>{% else %}<td>{{ cell | md }}</td>{% endif %}
{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>The reviewers' questions about SCD, and what the experiments answer</title>
<style>
:root { --card: #fcfbf8; --ink: #23262b; --soft: #5c616a; --line: #dcd9d1; --link: #0060a0; --head: #f1eee6; }
@media (prefers-color-scheme: dark) {
  :root { --card: #17191c; --ink: #e6e3dc; --soft: #a3a8b0; --line: #3a3e44; --link: #7cbcf0; --head: #22262b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 92rem; background: var(--card); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
a { color: var(--link); }
p, ul, dl, blockquote, figure { max-width: 60rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
blockquote { margin: 0.5rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
code { font-size: 0.9em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
caption { text-align: left; color: var(--soft); padding: 0.5rem 0; }
caption span { display: inline-block; position: sticky; left: 0; max-width: min(60rem, calc(100vw - 2rem)); }
th, td { border: 1px solid var(--line); padding: 0.35rem 0.5rem; text-align: left; vertical-align: top; }
td { min-width: 6rem; }
tbody th { position: sticky; left: 0; background: var(--card); max-width: 30vw; }
thead th { background: var(--head); padding: 0; }
thead button { width: 100%; padding: 0.35rem 0.5rem; border: 0; background: none; color: inherit; font: inherit;
  font-weight: 600; text-align: left; cursor: pointer; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
#questions td:nth-child(2) { min-width: min(22rem, 62vw); }
#questions td:nth-child(n+6) { min-width: 12rem; }
dt { font-weight: 600; }
dd { margin: 0 0 0.4rem 1rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: 0.875rem; }
summary { cursor: pointer; font-weight: 600; }
</style>
</head>
<body>
<header>
<h1>The reviewers' questions about SCD, and what the experiments answer</h1>
<p>Every number comes from the records of the suite's pages. A page that is called stale was made by older code.
Click on the head of a column to sort by it. Links to pages lead to files beside this one.</p>
<nav aria-label="Parts">
<ul>
<li><a href="#all">All answers</a></li>
{% for name, words, entries in reviewers %}
<li><a href="#{{ name }}">{{ name }}: {{ words }}</a></li>
{% endfor %}
<li><a href="#named">The systems that the reviewers name</a></li>
<li><a href="#every">All pages</a></li>
</ul>
</nav>
</header>
<main>
<section id="all">
<h2>All answers</h2>
{{ table(summary, "questions", power) }}
</section>
{% for name, words, entries in reviewers %}
<section id="{{ name }}">
<h2>{{ name }}: {{ words }}</h2>
{% for entry in entries %}
<article id="{{ entry.question.id }}">
<h3>{{ entry.question.id }}</h3>
<blockquote>{{ entry.question.text }}</blockquote>
<p><strong>Answer.</strong> {{ entry.answer | md }}</p>
<dl>
{% for key, value in facts(entry).items() %}
<dt>{{ key | md }}</dt><dd>{{ value | md }}</dd>
{% endfor %}
</dl>
{% for answer in entry.main %}
{% if answer.parts or answer.stored %}
{% if (entry.question.id, answer.reading.name) in figures %}
{% set figure, is_shown = figures[entry.question.id, answer.reading.name] %}
{% if is_shown %}
<figure id="{{ figure.anchor }}">
<img src="{{ figure.source }}" alt="{{ figure.alt }}">
<figcaption>{{ figure.alt | md }}{% if figure.credits %} {{ figure.credits | md }}{% endif %}</figcaption>
</figure>
{% else %}
<p><a href="#{{ figure.anchor }}">The figure of {{ answer.reading.name }}</a></p>
{% endif %}
{% endif %}
<details>
<summary>What the page {{ answer.reading.name }} says</summary>
{% if answer.reading.reason %}
<p>The answer is given as the page has it: {{ answer.reading.reason | md }}.</p>
{% endif %}
{% if answer.parts %}
<ul>
{% for part in answer.parts %}
<li>{% if part.title %}<em>{{ part.title }}</em> {% endif %}{{ part.text | md }}</li>
{% endfor %}
</ul>
<p><strong>What they could have seen.</strong> {{ could_have_seen(answer.parts) | md }}</p>
{% else %}
<p>{{ answer.stored | md }}</p>
{% endif %}
</details>
{% endif %}
{% endfor %}
</article>
{% endfor %}
</section>
{% endfor %}
<section id="named">
<h2>The systems that the reviewers name</h2>
{{ table(systems, "systems", caption) }}
</section>
<section id="every">
<h2>All pages</h2>
{% for line in unread %}
<p>{{ line | md }}</p>
{% endfor %}
{% if pages.empty %}
<p>There is no page yet.</p>
{% else %}
{{ table(pages, "pages", stale) }}
{% endif %}
{% if answers %}
<ul>
{% for line in answers %}
<li>{{ line | md }}</li>
{% endfor %}
</ul>
{% endif %}
</section>
</main>
<script>
function key(cell) {
  const text = cell.textContent.trim().replaceAll("\\u2212", "-");
  const number = text.match(/^[-+]?\\d+(\\.\\d+)?/);
  return number ? [0, Number(number[0]), text] : [text === "\\u2013" ? 2 : 1, 0, text];
}
function compare(a, b) {
  return a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2]);
}
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const place = head.cellIndex, sign = head.ariaSort === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.ariaSort = "none";
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    const rows = [...body.rows].map(row => [key(row.cells[place]), row]);
    rows.sort((a, b) => sign * compare(a[0], b[0]));
    for (const [, row] of rows) body.append(row);
  });
}
</script>
</body>
</html>
"""

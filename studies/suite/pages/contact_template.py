"""The template of the contact sheet; a module, so that packages have it without further files."""

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Maps of {{ shown | length }} picture{{ "" if shown | length == 1 else "s" }}</title>
<style>
:root { --card: #fcfbf8; --ink: #23262b; --soft: #5c616a; --line: #dcd9d1; --map: 1; }
@media (prefers-color-scheme: dark) {
  :root { --card: #17191c; --ink: #e6e3dc; --soft: #a3a8b0; --line: #3a3e44; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; background: var(--card); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
header p, header li { max-width: 60rem; }
.panels { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin-bottom: 1.5rem; }
figure { margin: 0; flex: 0 1 20rem; }
figure > div { position: relative; background-size: 100% 100%; border: 1px solid var(--line); }
figure img { display: block; width: 100%; height: auto; }
figure .map { opacity: var(--map); }
.missing { display: grid; place-content: center; padding: 0.5rem; color: var(--soft); text-align: center; }
figcaption { font-size: 0.8125rem; color: var(--soft); }
figcaption strong { display: block; color: var(--ink); }
figcaption span { display: block; }
.scale { display: inline-block; width: 12rem; height: 0.9rem; vertical-align: middle; border: 1px solid var(--line);
  background: linear-gradient(to right, {{ gradient }}); }
.failed { border-left: 3px solid #d55e00; padding-left: 1rem; }
</style>
</head>
<body>
<header>
<h1>Maps of {{ shown | length }} picture{{ "" if shown | length == 1 else "s" }}</h1>
<p>All maps have one colour scale: 0 <span class="scale" role="img" aria-label="colours from 0 to 1"></span> 1.
Below each map stand the least and the largest of its values.</p>
<p><label>The picture through the maps:
<input type="range" id="through" min="0" max="100" value="0"> <output for="through">0 %</output></label></p>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% if failed %}
<section class="failed">
<h2>Not drawn</h2>
<ul>
{% for line in failed %}
<li>{{ line }}</li>
{% endfor %}
</ul>
</section>
{% endif %}
<nav aria-label="Pictures">
<ul>
{% for picture in shown %}
<li><a href="#picture-{{ loop.index }}">{{ picture.name }}</a></li>
{% endfor %}
</ul>
</nav>
</header>
<main>
{% for picture in shown %}
<article id="picture-{{ loop.index }}">
<h2>{{ picture.name }}</h2>
<p>{% for line in picture.lines %}{{ line }}{{ "" if loop.last else "; " }}{% endfor %}.
The same as one image: <a href="{{ picture.png | urlencode }}">{{ picture.png }}</a></p>
{% for group in picture.groups %}
<div class="panels">
{% for panel, source in group %}
<figure>
{% if source %}
<div{% if source.startswith("data:image/png") %} class="over"{% endif %}>
<img{% if source.startswith("data:image/png") %} class="map"{% endif %} src="{{ source }}" width="{{ picture.size[0] }}"
 height="{{ picture.size[1] }}" alt="{{ panel.title }}, {{ picture.name }}"></div>
{% else %}
<div class="missing" style="aspect-ratio: {{ picture.size[0] }} / {{ picture.size[1] }}">no map</div>
{% endif %}
<figcaption><strong>{{ panel.title }}</strong>
{% for line in panel.lines %}
<span>{{ line }}</span>
{% endfor %}
</figcaption>
</figure>
{% endfor %}
</div>
{% endfor %}
</article>
{% endfor %}
</main>
<script>
for (const article of document.querySelectorAll("article")) {
  const picture = article.querySelector("img").src;
  for (const box of article.querySelectorAll(".over")) box.style.backgroundImage = `url(${picture})`;
}
const slider = document.querySelector("#through");
slider.addEventListener("input", () => {
  document.documentElement.style.setProperty("--map", 1 - slider.value / 100);
  slider.nextElementSibling.value = `${slider.value} %`;
});
</script>
</body>
</html>
"""

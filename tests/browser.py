"""A real browser, where the machine has one: what a page looks like when it is laid out."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000", "--dump-dom"]


def dom_of(page: Path, profile: Path) -> str:
    """The document after its scripts ran; skips the test where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium to open the page with")
    command = [browser, *_FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


# Frames of the widths asked, everything unfolded in them; then what stands out of the page, or out of its own frame.
_MEASURE = """<!doctype html><meta charset="utf-8"><pre id="found"></pre><script>
const frames = FRAMES;
Promise.all(frames.map(([width, html]) => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll('details').forEach(part => part.open = true);
    const name = part => `${part.tagName} ${part.textContent.slice(0, 40)}`;
    const out = (part, left, right) => {
      const box = part.getBoundingClientRect();
      return box.width > 0 && (box.left < left - 0.5 || box.right > right + 0.5);
    };
    const parts = [...page.body.querySelectorAll('*')].filter(part => !part.closest('svg'));
    const free = parts.filter(part => !part.parentElement.closest('.scroll'));
    done({
      width, page: root.scrollWidth, screen: root.clientWidth, cells: page.querySelectorAll('th,td').length,
      spilt: parts.filter(part => part.clientWidth && part.scrollWidth > part.clientWidth + 1
        && page.defaultView.getComputedStyle(part).overflowX === 'visible').map(name),
      beyond: free.filter(part => out(part, 0, root.clientWidth)).map(name),
      cut: [...page.querySelectorAll('th,td')].filter(cell => {
        const box = cell.closest('.scroll').getBoundingClientRect();
        return out(cell, box.left, box.right);
      }).map(name),
    });
  };
  frame.srcdoc = html;
  document.body.append(frame);
}))).then(found => document.getElementById('found').textContent = JSON.stringify(found));
</script>"""


def laid_out(frames: list[tuple[int, str]], folder: Path) -> list[dict[str, Any]]:
    """Per (width in px, HTML): widths of `page` and `screen`, parts `beyond` or `spilt`, cells `cut` by a scroller.

    `beyond` is outside the screen, `spilt` wider than its own box.
    """
    harness = folder / "harness.html"
    data = json.dumps(frames).replace("<", "\\u003c")
    harness.write_text(_MEASURE.replace("FRAMES", data), encoding="utf-8")
    text = dom_of(harness, folder / "browser").partition('<pre id="found">')[2].partition("</pre>")[0]
    return json.loads(text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))

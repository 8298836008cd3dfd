"""The explorer of a large run: a page that stays small, and reads what lies beside it in a real
browser, opened as a file."""

import json
import re
import shutil
import subprocess

import pytest

from fsrbench.engine.run import Run
from fsrbench.errors import FsrError
from fsrbench.reports.pages import explorer, site
from fsrbench.reports.pages.explorer import EMBEDDED, FOLDER

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)


@pytest.fixture(scope="module")
def outcome(session_store):
    from fsrbench.engine.options import plan

    options = plan("mini", "orl", ("8", "16"), ("bicubic", "reference"), ("psnr", "ssim"), "5", "0",
                   "7")
    return Run(options, session_store).execute()


@pytest.fixture
def large(outcome, tmp_path, monkeypatch):
    """The page of a run that counts as large; its data."""
    monkeypatch.setattr(explorer, "EMBEDDED", 0)
    found = explorer.data(outcome, tmp_path)
    page = site.page("Large", "", [explorer.section()], {"explorer": found})
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    return found


def test_a_run_of_the_default_stands_in_the_page_and_one_at_the_paper_s_size_does_not(outcome):
    assert 18 * 2 * 59 * 64**2 <= EMBEDDED < 18 * 2 * 59 * 256**2


def test_a_large_run_lies_beside_the_page(outcome, large, tmp_path):
    store, samples = outcome.measures.store, outcome.samples.samples
    assert not large["rows"] and "images" not in large
    shown = set(outcome.records["image"]) | {d for s in samples for scale in (8, 16) for d in (
        s.gt.digest, s.reference.digest, outcome.lr.digest(s, scale))}
    images = {path.stem: path for path in (tmp_path / FOLDER / "images").glob("??/*.webp")}
    assert set(images) == shown and all(store.holds(name) for name in images)
    text = (tmp_path / FOLDER / large["cells"]["16|bicubic"]).read_text()
    rows = json.loads(re.fullmatch(r'explorerRows\("16\|bicubic",(.*)\);\n', text)[1])
    values = outcome.records.set_index(["sample", "scale", "method", "metric"])["value"]
    for at, _, image, found, why in rows:
        assert large["samples"][at][0] == samples[at].id and image in images and not why
        ids = [m["id"] for m in large["metrics"]]
        assert found == pytest.approx([values[samples[at].id, 16, "bicubic", m] for m in ids],
                                      rel=1e-5)
    assert len(rows) == len(samples)


def test_a_smaller_report_leaves_nothing_of_a_larger_one(outcome, large, tmp_path, monkeypatch):
    folder = tmp_path / FOLDER
    (folder / "rows-99.js").touch()
    explorer.data(outcome, tmp_path)
    assert sorted(p.name for p in folder.glob("*.js")) == sorted(large["cells"].values())
    monkeypatch.undo()
    (folder / "rows-hers.js").touch()
    assert explorer.data(outcome, tmp_path)["rows"]
    assert [path.name for path in folder.rglob("*")] == ["rows-hers.js"]
    (folder / "rows-hers.js").unlink()
    explorer.data(outcome, tmp_path)
    assert not folder.exists()


def test_a_place_beside_the_page_that_is_a_file_is_named(outcome, tmp_path, monkeypatch):
    (tmp_path / FOLDER).write_bytes(b"hers")
    assert explorer.data(outcome, tmp_path)["rows"]
    monkeypatch.setattr(explorer, "EMBEDDED", 0)
    with pytest.raises(FsrError, match=f"--out {tmp_path / FOLDER}: cannot be written"):
        explorer.data(outcome, tmp_path)
    assert (tmp_path / FOLDER).read_bytes() == b"hers"


def test_images_are_written_once_and_those_of_earlier_reports_go(outcome, large, tmp_path):
    images = tmp_path / FOLDER / "images"
    first = next(images.glob("??/*.webp"))
    (images / "00").mkdir(exist_ok=True)
    old, hers = images / "00" / f"{'0' * 64}.webp", images / "00" / "hers.webp"
    for path in (old, hers, first):
        path.write_bytes(b"as it was")
    explorer.data(outcome, tmp_path)
    assert first.read_bytes() == hers.read_bytes() == b"as it was" and not old.exists()


def browse(folder, script, hash=""):
    """What an asynchronous script returns in the page, opened as a file."""
    if not BROWSER:
        pytest.skip("no chromium on this machine")
    page, text = folder / "page.html", (folder / "report.html").read_text(encoding="utf-8")
    wait = ("const wait = async (test) => { while (!test()) "
            "await new Promise((r) => setTimeout(r, 20)); };")
    end = (f"<script>{wait}(async () => {{ {script} }})().then((found) => "
           f"{{ document.title = JSON.stringify(found); }})</script></body>")
    page.write_text(text.replace("</body>", end), encoding="utf-8")
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu",
                           "--window-size=1200,900", "--virtual-time-budget=8000", "--dump-dom",
                           f"{page.as_uri()}{hash}"], capture_output=True, text=True, timeout=120)
    return json.loads(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]
                      .replace("&quot;", '"').replace("&amp;", "&"))


LOADED = 'await wait(() => document.querySelector("#cards img")?.naturalWidth);'


def test_a_browser_reads_a_cell_when_it_is_chosen(outcome, large, tmp_path):
    count = len(outcome.samples.samples)
    assert len((tmp_path / "report.html").read_bytes()) < 60_000
    found = browse(tmp_path, LOADED + """
      const cards = () => [...document.querySelectorAll("#cards button")].map((b) => b.dataset.key);
      const scripts = () => document.querySelectorAll("script[src]").length;
      const first = [cards(), scripts(), document.querySelector("#cards img").naturalWidth];
      const choose = async (name, value) => {
        const form = document.getElementById("filters");
        form.elements[name].value = value;
        form.dispatchEvent(new Event("input"));
        await wait(() => document.getElementById("count").textContent !== "loading");
      };
      await choose("method", "");
      const all = [document.getElementById("count").textContent, scripts()];
      await choose("method", "bicubic");
      const again = [cards(), scripts()];
      document.querySelectorAll("#cards button")[1].click();
      const images = [...document.querySelectorAll("#detail img")];
      await wait(() => images.every((i) => i.naturalWidth));
      return { first, all, again, detail: images.length, hash: location.hash };""")
    assert found["first"][1:] == [1, 64] and found["first"] == [*found["again"][:1], 1, 64]
    assert all(key.endswith("|8|bicubic") for key in found["first"][0])
    assert found["all"] == [f"{2 * count} restorations, {min(48, 2 * count)} shown", 2]
    assert found["again"][1] == 2 and found["detail"] == 2 and "sample=" in found["hash"]


def test_an_address_opens_a_sample_of_a_cell_that_is_not_read_yet(outcome, large, tmp_path):
    name = outcome.samples.samples[3].id
    found = browse(tmp_path, 'await wait(() => document.querySelector("#detail h3"));'
                   'return document.querySelector("#detail h3").textContent;',
                   f"#explorer?scale=16&method=reference&sample={name}%7C16%7Creference")
    assert found.endswith(f"×16: {name}")


def test_what_is_not_beside_the_page_is_named(large, tmp_path):
    (tmp_path / FOLDER / large["cells"]["8|bicubic"]).unlink()
    found = browse(tmp_path, 'const count = document.getElementById("count");'
                   'await wait(() => count.textContent !== "loading"); return count.textContent;')
    assert found == f"{FOLDER}/{large['cells']['8|bicubic']} must lie beside this page"

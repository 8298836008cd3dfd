"""The report: what it shows is what the tables hold, and its script does in a real browser what a
reader expects."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fsrbench.core import Method
from fsrbench.engine.run import Run
from fsrbench.registry import methods
from fsrbench.reports.pages.report import report
from fsrbench.reports.tables.comparisons import TABLE1, tabulate
from fsrbench.reports.tables.render import number

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of three methods, one of which fails on some samples."""
    from fsrbench.engine.options import plan
    from fsrbench.engine.store import Store
    from fsrbench.registry import _methods

    class Picky(Method):
        name, title, weights, nfe, licence = "picky.one", "Picky", "given", 1, "none"

        def restore(self, batch):
            images = batch.upsampled[:, :, ::-1]
            batch.failures.update({i: "upside <down>" for i, name in enumerate(batch.ids)
                                   if name.endswith("3.jpg")})
            return images
    methods()
    _methods["picky.one"] = Picky
    try:
        folder = tmp_path_factory.mktemp("report")
        options = plan("mini", "example", ("8", "16"), ("bicubic", "reference", "picky.one"),
                       ("psnr", "ssim"), "5", "0", "7")
        path = report(options, Store(folder / "store"), folder)
        outcome = Run(options, Store(folder / "store")).execute()
        yield path, outcome
    finally:
        del _methods["picky.one"]


@pytest.fixture(scope="module")
def html(made):
    return made[0].read_text(encoding="utf-8")


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S).group(1))


def test_the_page_stands_alone_and_has_every_number(made, html):
    assert not re.search(r'(?:src|href)="(?!data:|#)',
                         html) and not re.search(r"@import|url\((?!#)", html)
    table = tabulate(TABLE1, made[1])
    for scale, rows in table.blocks.items():
        for row in rows:
            for column in table.columns:
                s = row.values[column.id].summary
                key = re.escape(f"{row.method}|{scale}|{column.id}")
                cell = re.search(rf'data-cell="{key}" aria-label="([^"]*)"', html)
                assert cell[1].startswith(f"{number(column, s.mean)}, 95 % interval "
                                          f"{number(column, s.low)} to")
                assert f"n = {s.n_ok}" in cell[1]


def test_the_explorer_has_every_sample_and_the_values_of_the_records(made, html):
    outcome, data = made[1], data_of(html)["explorer"]
    assert len(data["rows"]) == 3 * 2 * len(outcome.samples.samples)
    values = outcome.records.set_index(["sample", "scale", "method", "metric"])["value"]
    ids = [m["id"] for m in data["metrics"]]
    for sample, _, scale, name, *places, found, why in data["rows"]:
        failed = name == "picky.one" and sample.endswith("3.jpg")
        assert (why == "upside <down>") == failed == (places[3] is None)
        if not failed:
            assert found == pytest.approx([values[sample, scale, name, m] for m in ids], rel=1e-5)
    assert len(data["images"]) == len(set(data["images"])), "each image stands in the page once"


def test_failures_and_origins(made, html):
    n = sum(s.id.endswith("3.jpg") for s in made[1].samples.samples)
    assert n and html.count('<td class="wide">upside &lt;down&gt;</td>') == 2 * n
    found = data_of(html)["provenance"]
    assert found["shared"]["data set digest"] == made[1].samples.digest
    kinds = ["restored", *(m.id for m in made[1].measures.per_sample)]
    assert set(found["made"]) == {f"{scale}|{m}|{kind}" for scale in (8, 16)
                                  for m in found["methods"] for kind in kinds}
    assert all(run["commit"] is None or len(run["commit"]) == 40 for run in found["runs"].values())


def test_other_tables_stand_on_the_page_once_their_records_are_there(made, tmp_path, monkeypatch):
    from dataclasses import replace

    from fsrbench.engine.store import Store
    from fsrbench.metrics import family
    from fsrbench.reports.pages import report as pages
    from fsrbench.reports.tables.comparisons import Comparison

    small = Comparison("table3", "Table 3: small", ("4",), ("bicubic",), ("psnr",))
    monkeypatch.setattr(pages, "COMPARISONS", {"table1": TABLE1, "table3": small})
    options, store, samples = made[1].options, Store(made[0].parent / "store"), made[1].samples
    assert pages.other_tables(options, store, samples) == ([], {"table3": pages.ABSENT,
                                                                "ablation": pages.ABSENT})
    # As in a profile that has no weights of the ablation: the page says so, and stands.
    monkeypatch.setattr(pages.ablation, "METHODS", ("dr2.official",))
    Run(replace(options, scales=(4,), methods=("bicubic",), metrics=tuple(family("psnr")),
                lenient=True), store).execute()
    (tmp_path / "table6.html").write_text("<main><h1>Table 6</h1><p>counted</p><h2>Notes</h2>"
                                          "</main>")
    text = report(options, store, tmp_path).read_text(encoding="utf-8")
    rows = store.read("rows")
    assert set(rows[rows["scale"]
                    == 4]["method"]) == {"bicubic"}, "the page computes no other table"
    assert '<section id="table3"' in text and 'data-cell="bicubic|4|psnr.rgb"' in text
    assert re.search(r"<code>invoke ablation</code>: methods: none of the default ones has its "
                     r"weights", text)
    assert '<section id="table4"' in text and "<p>counted</p><h3>Notes</h3>" in text
    assert "invoke table6" not in text
    assert "4|bicubic|psnr.rgb" in data_of(text)["provenance"]["made"]


def test_what_a_screen_reader_needs(html):
    levels = [int(level) for level in re.findall(r"<h(\d)", html)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert max(np.diff(levels)) <= 1, "no level is skipped"
    assert '<html lang="en">' in html and 'class="skip" href="#main"' in html
    assert len(re.findall(r"<table", html)) == len(re.findall(r"<caption", html))
    assert all('scope="' in head or "scope='" in head for head in re.findall(r"<th[ >][^>]*>?",
                                                                             html))
    assert not re.search(r"<img(?![^>]*alt=)", html)


@pytest.fixture
def browse(html, tmp_path):
    """Run a script in the page, in a real browser, at a window size and address; returns what it
    returns."""
    if not BROWSER:
        pytest.skip("no chromium on this machine")

    def run(script, hash="", width=1200):
        page = tmp_path / "page.html"
        end = f"<script>document.title = JSON.stringify((() => {{ {script} }})())</script></body>"
        page.write_text(html.replace("</body>", end), encoding="utf-8")
        done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu",
                               f"--window-size={width},900",
                               "--virtual-time-budget=3000", "--dump-dom",
                               f"{page.as_uri()}{hash}"],
                              capture_output=True, text=True, timeout=120)
        title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]
        return json.loads(title.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")
                          .replace("&amp;", "&"))
    return run


def test_heads_sort_and_missing_values_stay_last(browse):
    order = """const table = document.querySelector("#table1 table.sortable");
      const body = table.tBodies[0];
      const heads = [...table.tHead.rows[0].cells];
      const column = heads.findIndex((c) => c.textContent.startsWith("PSNR"));
      const names = () => [...body.rows].map((r) => r.cells[0].textContent);
      const values = () => [...body.rows].map((r) => Number(r.cells[column].dataset.sort));
      const head = table.tHead.rows[0].cells[column].querySelector("button");
      head.click(); const up = values(); head.click(); const down = values();
      body.rows[0].cells[column].dataset.sort = ""; const gone = names()[0];
      head.click(); const last = names().at(-1); head.click();
      const said = head.parentElement.getAttribute("aria-sort");
      return [up, down, gone, last, names().at(-1), said];"""
    up, down, gone, last, still, said = browse(order)
    assert up == sorted(up) and down == up[::-1] and len(set(up)) == 3 and gone == last == still
    assert said == "descending"


def test_the_explorer_in_a_browser(browse, html):
    rows = data_of(html)["explorer"]["rows"]
    worst = [r for r in rows if r[2] == 16 and r[3] == "bicubic"]
    worst.sort(key=lambda r: r[8][0])
    script = """const cards = [...document.querySelectorAll("#cards button")];
      const keys = cards.map((b) => b.dataset.key);
      document.querySelectorAll("#cards button")[1].click();
      const detail = document.getElementById("detail");
      detail.querySelector("input[type=range]").value = 20;
      detail.querySelector("input[type=range]").dispatchEvent(new Event("input"));
      return { keys, count: document.getElementById("count").textContent,
        head: detail.querySelector("h3").textContent,
        cells: [...detail.querySelectorAll("td")].map((c) => c.textContent), hash: location.hash,
        cut: detail.querySelector(".slider").style.getPropertyValue("--cut"),
        images: detail.querySelectorAll("img").length,
        pressed: document.querySelectorAll('#cards [aria-pressed="true"]').length }"""
    found = browse(script, "#explorer?scale=16&method=bicubic&metric=0")
    assert found["keys"] == [f"{r[0]}|16|bicubic" for r in worst]
    assert found["count"].startswith(f"{len(worst)} restorations")
    assert worst[1][0] in found["head"] and f"{worst[1][8][0]:.2f}" in found["cells"]
    assert found["cut"] == "20%"
    assert found["images"] == 2 and found["pressed"] == 1 and "sample=" in found["hash"]
    failed = next(r for r in rows if r[9])
    script = """const detail = document.getElementById("detail");
      return [detail.querySelector(".why").textContent, detail.querySelectorAll("option").length]"""
    place = f"#explorer?scale={failed[2]}&sample={failed[0]}%7C{failed[2]}%7C{failed[3]}"
    assert browse(script, place) == ["failed: upside <down>", 6]


def test_a_value_tells_where_it_comes_from(browse, made):
    script = """const button = document.querySelector('button[data-cell^="reference|16|"]');
      button.click();
      const dialog = document.getElementById("provenance");
      return [dialog.open, dialog.textContent, document.activeElement !== document.body]"""
    is_open, text, focused = browse(script)
    assert is_open and focused and made[1].samples.digest in text and "Warped reference ×16" in text
    assert "commit" in text


def test_nothing_is_wider_than_a_phone(browse):
    assert browse("return document.documentElement.scrollWidth <= window.innerWidth", width=400)


@pytest.mark.parametrize("width", [1250, 400])
def test_long_metric_ids_stay_in_the_page(browse, width):
    assert browse("""document.querySelectorAll("#cards button")[0].click();
      const cells = [...document.querySelectorAll("#detail tr td:last-child")];
      cells.forEach((c) => { c.textContent = "rank1.people-truthpoints@frfeature-and-longer"; });
      return cells.length > 1 && cells.every((c) => c.getBoundingClientRect().right <= innerWidth)
        && document.documentElement.scrollWidth <= innerWidth;""", width=width)


def test_the_command(invoke, session_store, tmp_path):
    done = invoke("report", "--people", "2", "--method", "bicubic", "--scale", "8", "--store",
                  session_store.root, "--out", tmp_path / "o", check=0)
    assert "report.html" in done.stdout and (tmp_path / "o" / "report.html").stat().st_size > 10_000

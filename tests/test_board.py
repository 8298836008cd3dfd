"""The board: what may be compared stands together, what does not hold is refused, and its pages
work from a file in a real browser."""

import contextlib
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from PIL import Image
from test_exchange import forged, set_value

from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.exchange.collect import records
from fsrbench.exchange.record import content_id, read, sealed, write
from fsrbench.imaging import digest
from fsrbench.reports.board.drawing import Axis, pareto
from fsrbench.reports.board.groups import grouped, load
from fsrbench.reports.board.pages import (
    group_page,
    history_page,
    method_page,
    robustness_page,
)
from fsrbench.reports.board.site import board
from fsrbench.reports.tables.table import build

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
METRICS = ("psnr", "ids.cosine@dlib", "fd")
HOSTILE = "\"><script>document.title='taken'</script><img src=x onerror=alert(1)>'&\u202e"


@pytest.fixture(scope="module")
def made(tmp_path_factory, session_store):
    """Result files of three runs: two folders of images that others wrote, and a control."""
    root = tmp_path_factory.mktemp("board")
    controls = Run(plan("mini", "example", ("8", "16"), ("bicubic", "reference"), METRICS, "5", "0",
                        "7"), session_store)
    rows = controls.execute().records
    for r in rows[(rows["metric"] == "restored") & (rows["scale"] == 8)].itertuples():
        path = root / r.method / r.sample.replace(".jpg", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(session_store.image(r.image)).save(path)
    found = [records(controls, controls.execute(), "Lab A", timed=True)[0]]
    for name, folder in (("sharp", "reference"), ("smooth", "bicubic")):
        run = Run(plan("mini", "example", ("8",), (f"outputs:{name}={root / folder}",), METRICS,
                       "5", "0", "7"), session_store)
        found += records(run, run.execute(), f"Lab {name}", "author")
    for i, record in enumerate(found):
        write(record, root / "files" / f"{i}.parquet")
    return root, found


def test_files_of_three_runs_stand_in_one_table_marked_as_our_own(made, session_store):
    root, found = made
    entries, refused = load(sorted((root / "files").glob("*.parquet")))
    groups = grouped(entries)
    assert not refused and [(g.scale, len(g.entries)) for g in groups] == [(8, 3), (16, 1)]
    group = groups[0]
    names = [f"outputs:{n}={root / f}" for n, f in (("sharp", "reference"), ("smooth", "bicubic"))]
    ours = build(Run(plan("mini", "example", ("8",), ("bicubic", *names), METRICS, "5", "0", "7"),
                     session_store).execute(), "t", "T",
                 plan("mini", "example", ("8",), (), METRICS, "5", "0", "7").metrics, "").blocks[8]
    rows = {e.method["name"]: e for e in group.entries}
    assert {r.method for r in ours} == set(rows) and len(rows) == 3
    for row in ours:
        for name, value in row.values.items():
            said = group.cells[rows[row.method].id, name].summary
            assert vars(said) == pytest.approx(vars(value.summary), rel=1e-12, nan_ok=True)
            assert group.marks.get((rows[row.method].id, name), "") == value.mark
    assert "best" in group.marks.values(), "or nothing was compared"
    assert group.unranked(rows["bicubic"]) == "control"


def test_what_differs_in_anything_that_decides_a_value_stands_apart(made):
    record = made[1][1]

    def tables(change, agree=True):
        other = forged(record, change, agree)
        (made[0] / "two").mkdir(exist_ok=True)
        paths = [write(r, made[0] / "two" / f"{i}.parquet")[0]
                 for i, r in enumerate((record, other))]
        entries, refused = load(paths)
        assert not refused, refused
        return len(grouped(entries))

    def person(header, rows):
        rows["person"] = "x" + rows["person"]

    def fewer(header, rows):
        header["metrics"] = [m for m in header["metrics"] if m["id"] != "psnr.rgb"]
        header["values"] = [v for v in header["values"] if v["metric"] != "psnr.rgb"]
        rows.drop(rows.index[rows["metric"] == "psnr.rgb"], inplace=True)

    def network(header, rows):
        header["metrics"][1]["weights"] = {"other": "0" * 64}
    assert tables(lambda h, r: h["submitter"].update(name="x")) == 1
    for change in (person, fewer, network, lambda h, r: h.update(seed=3),
                   lambda h, r: h["degradation"].update(id="blur@1")):
        assert tables(change) == 2, change


def test_a_table_of_somebody_s_own_images_is_called_by_their_digest(made):
    own = forged(made[1][1], lambda header, rows: header.update(profile="given"))
    path = write(own, made[0] / "own" / "own.parquet")[0]
    digest_ = own.header["data"]["manifest_sha256"]
    assert [g.title for g in grouped(load([path])[0])] == [
        f"Images {digest_[:8]} as given, 64 px, 15 images of 5 people"]


def test_what_does_not_hold_is_refused_and_the_page_says_why(made, tmp_path):
    root, (first, second, _) = made
    write(first, tmp_path / "good.parquet")
    shutil.copy(tmp_path / "good.parquet", tmp_path / "good-again.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 <b>bold</b>")
    os.mkfifo(tmp_path / "pipe.parquet")
    changed = second.rows.assign(value=second.rows["value"] * 1.01)
    write(replace(second, rows=changed), tmp_path / "forged.parquet")
    sample = second.rows["sample"][0]
    write(sealed(second.header, second.rows[second.rows["sample"] != sample]),
          tmp_path / "incomplete.parquet")
    write(forged(second, lambda h, r: h["metrics"][0].update(id="beauty.mine"), False),
          tmp_path / "unknown.parquet")
    old = tmp_path / "site" / f"method-{second.header['id'][:16]}.html"
    board([write(second, tmp_path / "once" / "held.parquet")[0]], tmp_path / "site")
    (tmp_path / "site" / "mine.html").write_text("kept")
    assert old.exists()
    shutil.rmtree(tmp_path / "once")
    board([tmp_path], tmp_path / "site")
    assert not old.exists() and (tmp_path / "site" / "mine.html").exists()
    page = (tmp_path / "site" / "index.html").read_text()
    reasons = dict(re.findall(r"<li><b>(\S+)\.parquet</b>: (.*?)</li>", page))
    assert set(reasons) == {"good", "noise", "forged", "incomplete", "unknown", "pipe"}
    assert "the same as" in reasons["good"] and "good-again.parquet" in reasons["good"]
    assert reasons["forged"].startswith("digest of the rows: stated")
    assert "samples left out" in reasons["incomplete"]
    assert "metric beauty.mine" in reasons["unknown"] and "no metric of that id" in page
    assert "is damaged" in reasons["noise"] and "<b>bold</b>" not in page
    assert len(list((tmp_path / "site").glob("method-*.html"))) == 1


def test_a_board_may_run_methods_again_and_refuses_what_that_contradicts(made, session_store,
                                                                         tmp_path):
    first, second, _ = made[1]
    sample = first.rows["sample"][0]
    was = first.rows.set_index(["scale", "metric", "sample"])["value"][8, "psnr.rgb", sample]
    false = forged(first, set_value("psnr.rgb", sample, was + 0.1))
    for name, record in (("true", first), ("theirs", second), ("false", false)):
        write(record, tmp_path / "in" / f"{name}.parquet")
    _, refused = board([tmp_path / "in"], tmp_path / "site", None, session_store)
    assert [r.path.name for r in refused] == ["false.parquet"]
    assert f"sample {sample}" in refused[0].reasons[0]
    page = (tmp_path / "site" / "index.html").read_text()
    assert "<td>re-run<small>control" in page and "<td>reported<small></small>" in page


def test_a_method_that_failed_on_a_sample_is_shown_and_not_ranked(made, session_store, tmp_path):
    root, _ = made
    shutil.copytree(root / "reference", tmp_path / "lacking")
    sorted((tmp_path / "lacking").rglob("*.png"))[0].unlink()
    run = Run(plan("mini", "example", ("8",), (f"outputs:lacking={tmp_path / 'lacking'}",), METRICS,
                   "5", "0", "7"), session_store)
    record, = records(run, run.execute())
    path = write(record, tmp_path / "lacking.parquet")[0]
    entries, refused = load([*sorted((root / "files").glob("*.parquet")), path])
    group = grouped(entries)[0]
    entry = next(e for e in group.entries if e.id == record.header["id"])
    assert not refused and group.unranked(entry) == "1 failed"
    assert not [k for k in group.marks if k[0] == entry.id]
    n = len(entry.values.samples)
    files = {p.name: p for p in board([root / "files", path], tmp_path / "site")[0]}
    assert f"{n - 1} (1 failed)" in files["index.html"].read_text()


def test_images_are_shown_only_where_their_pixels_are_the_file_s(made, tmp_path):
    root, _ = made
    paths, _ = board([root / "files"], tmp_path / "site", str(root / "bicubic"))
    shown = [p for p in paths if p.name.startswith("image-")]
    assert len(shown) == len(list((root / "bicubic").rglob("*.png")))
    pages = [p.read_text() for p in paths if p.name.startswith("sample-")]
    assert sum(page.count('alt="smooth"') for page in pages) == len(shown)
    assert not any('alt="sharp"' in page for page in pages)


def test_a_method_that_saw_a_judge_does_not_lead_that_judge_s_column(made):
    from fsrbench.exchange.checks import known_metric
    from fsrbench.reports.board.groups import Entry, _saw_judge

    def trained(header, rows):
        header["weights"] = [{"name": "sface", "sha256": "0" * 64, "bytes": 1, "licence": "x"}]
    judge, other = (known_metric(f"gap.people-truthpoints@{n}") for n in ("sface", "frfeature"))
    entry = Entry(forged(made[1][1], trained))
    assert _saw_judge(entry, judge) and not _saw_judge(entry, other)
    assert not _saw_judge(Entry(made[1][1]), judge)


def test_the_front_and_the_axes():
    assert pareto([1, 2, 3, 3], [5, 4, 9, 9]) == [True, False, True, True]
    assert Axis.of("s", [0.001, 10], True).ticks() == [0.001, 0.01, 0.1, 1, 10]
    assert Axis.of("s", [0, 1000], True).log is False
    assert 2 <= len(Axis.of("x", [20.5, 23.2]).ticks()) <= 7
    assert len(Axis.of("x", [1, 1]).ticks()) >= 1


def _hostile(record):
    """Every text of a file that its submitter chooses, with what would be markup."""
    def change(header, rows):
        for name in ("title", "licence", "origin", "remark", "settings"):
            header["method"][name] = HOSTILE
        header["method"]["name"] = HOSTILE
        header["submitter"]["name"] = header["data"]["licence"] = header["data"]["name"] = HOSTILE
        header["degradation"]["summary"] = header["data"]["rule"] = HOSTILE
        for metric in header["metrics"]:
            metric["words"] = metric["title"] = HOSTILE
        header["runs"][0].update(commit=HOSTILE, device=HOSTILE, machine=HOSTILE)
        header["weights"] = [{"name": HOSTILE, "sha256": HOSTILE, "bytes": 1, "licence": HOSTILE}]
        header["cost"]["weights_bytes"] = 1
        rows["sample"] = HOSTILE + rows["sample"]
        rows["person"] = HOSTILE + rows["person"]
        of_image = rows["metric"] == "restored"
        rows.loc[of_image, "manifest"] = HOSTILE + rows.loc[of_image, "manifest"]
        words = sorted([header["data"]["framing"], *rows.loc[of_image, "manifest"]])
        header["data"]["manifest_sha256"] = digest("\n".join(words).encode())
    return forged(record, change)


def _places(value, where=()):
    """Where each value of a header stands."""
    yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if \
        isinstance(value, list) else ()
    for name, one in inner:
        yield from _places(one, (*where, name))


def test_no_header_however_odd_ends_in_a_traceback(made, tmp_path):
    """Any value of a header replaced by any other, and sealed by who knows how: the file is
    refused, or shown."""
    record = made[1][1]
    odd = [None, -1, 0, 1e308, "", "x", [], {}, True, [[]], "\ud7ff" * 3, 2**70]
    shown = refused = 0
    for i, where in enumerate(p for p in _places(record.header) if p):
        header = json.loads(json.dumps(record.header))
        inner = header
        for name in where[:-1]:
            inner = inner[name]
        inner[where[-1]] = odd[i % len(odd)]
        false = replace(record, header={**header, "id": ""})
        with contextlib.suppress(TypeError):
            false = replace(false, header={**header, "id": content_id(header)})
        path = write(false, tmp_path / "odd.parquet")[0]
        entries, why = load([path])
        shown, refused = shown + len(entries), refused + len(why)
        for group in grouped(entries):
            assert "<html" in group_page(group) and "<html" in method_page(entries[0], [group])
            assert "<html" in history_page([group]) and "<html" in robustness_page([group])
    assert shown > 10 and refused > 50


@pytest.fixture(scope="module")
def site(made, tmp_path_factory):
    """A board of the three files and a hostile one; its pages by kind."""
    root, found = made
    folder = tmp_path_factory.mktemp("site")
    write(_hostile(found[1]), folder / "in" / "hostile.parquet")
    (folder / "in" / "<img src=y>.parquet").write_bytes(b"no")
    paths, refused = board([root / "files", folder / "in"], folder / "out",
                           str(root / "bicubic"))
    assert len(refused) == 1
    return paths


def test_whatever_a_file_says_is_text(site):
    pages = [p for p in site if p.suffix == ".html"]
    assert sum("onerror" in p.read_text() for p in pages) > 15, "it is shown"
    for path in pages:
        text = path.read_text()
        assert "<script>" not in text and "<img src=x" not in text and "<img src=y" not in text
        assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) <= {
            "#main", *(p.name for p in site)}, "no link leaves the site"
        assert re.fullmatch(r"[a-z]+(-[0-9a-f]{16})?\.html", path.name)


def test_what_a_screen_reader_needs(site):
    for path in (p for p in site if p.suffix == ".html"):
        text = path.read_text()
        levels = [int(level) for level in re.findall(r"<h(\d)", text)]
        assert levels.count(1) == 1 and levels[0] == 1
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:])), "no level is skipped"
        assert '<html lang="en">' in text and 'class="skip" href="#main"' in text
        assert len(re.findall("<table", text)) == len(re.findall("<caption", text))
        assert all("scope=" in head for head in re.findall(r"<th[ >][^>]*", text))
        assert not re.search(r"<img(?![^>]*alt=)", text)
        assert len(re.findall("<svg", text)) == len(re.findall("<svg[^>]*aria-label=", text))


def browse(path, script, width=1200, dark=False):
    """What a script returns in a page of a width, in a real browser; a frame, as a window of its
    own is never narrower than 500 px."""
    if not BROWSER:
        pytest.skip("no chromium on this machine")
    page, frame = path.with_name(f"_{path.name}"), path.with_name(f"_frame-{path.name}")
    end = f"<script>parent.postMessage(JSON.stringify((() => {{ {script} }})()), '*')</script>"
    page.write_text(path.read_text().replace("</body>", f"{end}</body>"))
    frame.write_text(f'''<meta charset="utf-8"><title>null</title><script>
      addEventListener("message", (event) => {{ document.title = event.data; }});</script>
      <iframe src="{page.name}" style="width: {width}px; height: 700px; border: 0"></iframe>''')
    more = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *more,
                           "--window-size=1300,800", "--virtual-time-budget=2000",
                           "--dump-dom", frame.as_uri()], capture_output=True, text=True,
                          timeout=120)
    page.unlink(), frame.unlink()
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]))


def page_of(site, kind):
    return next(p for p in site if p.name.startswith(kind))


def test_heads_sort_by_keyboard_and_no_script_of_a_file_runs(site):
    group = max((p for p in site if p.name.startswith("group-")),
                key=lambda p: p.read_text().count("<tr"))
    up, down, said, tag, focus = browse(group, """
      const table = document.querySelector("table.sortable");
      const head = [...table.tHead.rows[0].cells].find((c) => c.textContent.startsWith("PSNR"));
      const values = () => [...table.tBodies[0].rows]
        .map((r) => Number(r.cells[head.cellIndex].dataset.sort));
      const button = head.querySelector("button");
      button.focus(); const focus = document.activeElement === button;
      button.click(); const up = values(); button.click();
      return [up, values(), head.getAttribute("aria-sort"), button.tagName, focus];""")
    assert up == sorted(up) and down == up[::-1] and len(set(up)) == 2 and len(up) == 3
    assert (said, tag, focus) == ("descending", "BUTTON", True)


@pytest.mark.parametrize("kind", ["index", "group", "method", "sample", "robustness", "history"])
def test_a_page_fits_a_phone_and_is_dark_where_that_is_wished(site, kind):
    inner, wide, ground, ink = browse(page_of(site, kind), """
      const style = getComputedStyle(document.body);
      return [window.innerWidth, document.documentElement.scrollWidth, style.backgroundColor,
              style.color];""", width=360, dark=True)
    assert inner == 360 and wide <= inner, f"{wide} px"
    assert (ground, ink) == ("rgb(23, 23, 27)", "rgb(236, 236, 241)")


def test_the_command(made, invoke, tmp_path):
    root, _ = made
    shutil.copytree(root / "files", tmp_path / "files")
    (tmp_path / "files" / "bad.parquet").write_bytes(b"")
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (8, 8)).save(own / "1.png")
    done = invoke("board", tmp_path / "files", "--out", tmp_path / "o", "--images", own, check=0)
    assert f"shown: 0 images of {own} whose pixels a file names" in done.stdout
    assert re.search(r"refused \S+bad.parquet: is damaged", done.stdout)
    assert (tmp_path / "o" / "index.html").exists()
    assert "Lab sharp (author)" in (tmp_path / "o" / "index.html").read_text()
    invoke("board", tmp_path / "files", "--out", tmp_path / "o", check=0)  # its own may be renewed
    (own / "index.html").write_text("mine")
    done = invoke("board", tmp_path / "files", "--out", own, check=2)
    assert "is not empty, and no earlier board; give a new folder" in done.stderr
    assert (own / "index.html").read_text() == "mine" and len(list(own.iterdir())) == 2
    (tmp_path / "empty").mkdir()
    for where, text in (("/nowhere", "is not there"), (tmp_path / "empty", "holds no result"),
                        (tmp_path / "files" / "bad.parquet", "does not hold")):
        bad = invoke("board", where, "--out", tmp_path / "o2", check=2)
        assert text in bad.stderr and len(bad.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "o2").exists()
    assert read(tmp_path / "files" / "0.parquet").header["cost"]["seconds"] > 0

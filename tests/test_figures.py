"""The figures: all of them from a small reference set, their files, their words, and the numbers
behind them computed again."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench.errors import FsrError
from fsrbench.reports.figures.draw import draw
from fsrbench.reports.figures.registry import figures

FIGURES = tuple(range(1, 15))
IMAGES = {1, 3, 4, 5, 6, 9, 10, 11, 12, 14}
# Methods of the grids, so that the test needs few networks.
GRID = ("bicubic", "idfsr.pt", "idfsr.ft")
# What a reader must find written in each image.
WORDS = {
    1: ("Reference", "PT", "FT", "Ground truth", "IDS 0."),
    2: ("residual block", "cross-attention", "32×32", "Style encoder"),
    3: ("Warped", "Mask", "px off", "FT, jittered"), 4: ("Ours (FT)", "Truth", "×8", "×16"),
    5: ("Embedding of A", "to A 0.", "IDS to B"),
    6: ("restored", "Reference, own 1", "to reference"),
    7: ("images fitted to", "normalised, 1 is best", "Identity (IDS)"),
    8: ("Default", "PSNR ↑", "normalised, 1 is best"), 9: ("w/o reference", "median"),
    10: ("fitting 1", "test 1", "s1", "s5"),
    11: ("best", "worst", "PIQE"), 12: ("median", "Ours (FT)"),
    13: ("t-SNE of", "UMAP of", "fitted", "s1", "s5"), 14: ("clean", "w/o reference", "PSNR, dB")}


@pytest.fixture(scope="module")
def small(tmp_path_factory, orl_root):
    """A reference set of two people with six images each, a store, variants of the ablation that
    were never trained, and short fits: what is tested is how figures come about, not how good the
    networks are."""
    from fsrbench.methods.idfsr import fitting
    from fsrbench.reports.figures import degraded_reference
    from fsrbench.weights.catalogue import cache_folder

    root = tmp_path_factory.mktemp("figures")
    for person in ("s1", "s5"):
        (root / "album" / person).mkdir(parents=True)
        for n in range(1, 7):
            shutil.copy(orl_root / person / f"{n}.pgm", root / "album" / person)
    untrained(root / "weights")
    for path in cache_folder().glob("*.*"):
        (root / "weights" / path.name).symlink_to(path)
    steps = degraded_reference.ladder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSRBENCH_CACHE", str(root / "weights"))
        patch.setitem(fitting.FITS, "mini", replace(fitting.FITS["mini"], steps=2, batch=2))
        patch.setattr(degraded_reference, "ladder", lambda *_: steps[::4])
        yield root


def untrained(folder):
    """Weights of the variants as a short training would leave them, with cards that say so
    alike."""
    from safetensors.torch import save_file

    from fsrbench.methods.idfsr.configs import CASES, config_of
    from fsrbench.methods.idfsr.network import IdfsrNet

    folder.mkdir()
    for case in CASES:
        torch.manual_seed(case)
        network = IdfsrNet(config_of("mini", case))
        for p in network.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.02)
        path = folder / f"idfsr-mini-case{case}.safetensors"
        save_file(network.state_dict(), path)
        path.with_suffix(".json").write_text(json.dumps({"images_seen": 24000, "started_from": {}}))


def run(small, *numbers, out="out", methods=GRID, data=None):
    return draw([str(n) for n in numbers], "mini", [data or f"folder:{small / 'album'}"], methods,
                None, None, None, str(small / "store"), str(small / out))


@pytest.fixture(scope="module")
def drawn(small):
    """Every figure, drawn once."""
    assert run(small) == 0
    return small / "out"


def rows_of(folder, number):
    return list(csv.DictReader((folder / f"figure{number}.csv").open(encoding="utf-8")))


def texts(path):
    root = ElementTree.parse(path).getroot()
    return " ".join("".join(node.itertext())
                    for node in root.iter("{http://www.w3.org/2000/svg}text"))


def test_every_figure_of_the_paper_is_registered():
    assert set(FIGURES) == set(figures())
    assert all(entry.title and entry.number == n for n, entry in figures().items())


@pytest.mark.parametrize("number", FIGURES)
def test_files_words_and_caption(drawn, number):
    svg = drawn / f"figure{number}.svg"
    root = ElementTree.parse(svg).getroot()
    assert root.tag.endswith("svg") and float(root.get("width")
                                              .removesuffix("pt")) == pytest.approx(6.9 * 72)
    seen = texts(svg)
    assert not [word for word in WORDS[number] if word not in seen]
    caption = (drawn / f"figure{number}.txt").read_text(encoding="utf-8")
    assert caption.startswith(f"Figure {number}. {figures()[number].title}. ")
    assert re.search(r"n = \d+ ",
                     caption) and "profile mini" in caption and not re.search(r"\bnan\b", caption)
    assert figures()[number].title in root.find("{http://www.w3.org/2000/svg}title").text
    assert root.find("{http://www.w3.org/2000/svg}desc").text == caption.strip()
    if number not in (2, 10, 11):
        assert "mini" in seen and "not the paper's quality" in caption and "seed 0" in caption
    from PIL import Image

    assert (drawn / f"figure{number}.png").exists() == (number in IMAGES)
    if number in IMAGES:
        assert Image.open(drawn / f"figure{number}.png").width == 2070
    assert rows_of(drawn, number)


def test_nothing_is_computed_twice_and_the_bytes_are_the_same(small, drawn):
    from fsrbench.engine.store import Store

    records = {p.name for p in (small / "store" / "rows").iterdir()}
    fits = {p.name for p in (small / "store" / "fits").iterdir()}
    assert run(small, 2, 5, 7, 8, 14, out="again") == 0
    assert {p.name for p in (small / "store" / "rows").iterdir()} == records
    assert {p.name for p in (small / "store" / "fits").iterdir()} == fits
    assert not Store(small / "store").read("rows").duplicated("key").any()
    for path in (small / "again").iterdir():
        assert path.read_bytes() == (drawn / path.name).read_bytes(), path.name


def test_the_claims_find_what_the_figures_measured(small, drawn):
    """The named results are the figures' own numbers, and the predicates that need them have an
    answer."""
    from fsrbench.engine.options import open_store, plan
    from fsrbench.engine.results import results
    from fsrbench.reports.figures.context import Context
    from fsrbench.reports.gate.claims import predicates
    from fsrbench.reports.gate.evidence import MISSING, OurResults

    store = open_store(str(small / "store"))
    kept = results(store, "mini")
    moved = [float(r["own_to_a"]) - float(r["cross_to_a"]) for r in rows_of(drawn, 5)]
    crossed = kept["crossid/towards-a/ids"]
    assert crossed.value == pytest.approx(np.mean(moved)) and crossed.n == len(moved)
    curve = [r for r in rows_of(drawn, 14) if (r["method"], r["metric"])
             == ("idfsr.ft", "ids.cosine@dlib")]
    ids = {r["step"]: float(r["mean"]) for r in curve}
    steps = list(ids)
    for name, step in (("mild", steps[1]), ("severe", steps[-1])):
        assert kept[f"degraded-reference/{name}/ids"].value == pytest.approx(ids[step] - ids["0"],
                                                                             abs=1e-9)
    album = [float(r["mean"]) for r in rows_of(drawn, 7) if (r["metric"], r["size"])
             == ("ids.cosine@dlib", "3")]
    few = kept["references/3/ids"]
    assert few.value == pytest.approx(np.mean(album)) and "2 people of folder" in few.note
    context = Context(plan("mini", f"folder:{small / 'album'}", (), (), (), None, None, None),
                      store)
    view = OurResults(context.run(("bicubic",), (16,)).outcome, kept)
    for claim in ("crossid-transfer", "reference-degradation"):
        assert predicates()[claim](view).answer != MISSING


def test_the_jitter_of_figure_3_moves_the_warp_alone(small, drawn):
    from fsrbench.engine.options import plan
    from fsrbench.engine.results import results
    from fsrbench.engine.store import Store
    from fsrbench.reports.figures.context import Context
    from fsrbench.reports.figures.warping import JITTER, SCALE, jittered, measure

    store = Store(small / "store")
    exact, moved = measure(Context(plan("mini", f"folder:{small / 'album'}", (), (), (), None, None,
                                        None), store))
    size, far = 64, []
    for sample in exact.samples:
        other = jittered(sample, size)
        assert np.array_equal(other.reference.landmarks.points,
                              jittered(sample, size).reference.landmarks.points)
        assert other.reference.digest == sample.reference.digest
        assert other.reference.seen != sample.reference.seen
        assert other.album == sample.album and other.gt == sample.gt
        far.append(other.reference.landmarks.points - sample.reference.landmarks.points)
    assert np.std(far) == pytest.approx(JITTER * size, rel=0.1)
    before, after = (r.values("idfsr.ft", SCALE) for r in (exact, moved))
    assert not np.array_equal(before, after)
    assert results(store, "mini")["warp/jittered/ids"].value == pytest.approx(after.mean()
                                                                              / before.mean() - 1)


def test_images_stand_in_the_svg_pixel_by_pixel(small, drawn):
    """An image of Figure 10 is in the file, upsampled by repeating, its pixels unchanged."""
    import base64
    import io

    from PIL import Image

    from fsrbench.engine.store import Store

    found = re.findall(r'data:image/png;base64,([^"]+)"', (drawn / "figure10.svg").read_text())
    assert len(found) == 12
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
              for data in found]
    store = Store(small / "store")
    known = {row["image"] for row in store.read("prepared").to_dict("records") if row["image"]}
    kept = [store.image(name) for name in known]
    for shown in images:
        assert shown.shape == (256, 256, 3)
        assert any((shown[::4, ::4] == image).all() for image in kept) or any(
            (shown[::-1][::4, ::4] == image).all() for image in kept)


def test_the_architectures_caption_has_the_networks_total(drawn):
    from fsrbench.methods.idfsr.configs import MINI
    from fsrbench.methods.idfsr.network import IdfsrNet

    total = sum(p.numel() for p in IdfsrNet(MINI).parameters())
    assert f"{total:,}" in (drawn / "figure2.txt").read_text()
    assert f"{total:,}" in texts(drawn / "figure2.svg")


def test_the_bands_of_figure_7_by_hand(small, drawn):
    """From the record store: person means, normalised."""
    from fsrbench.engine.store import Store

    rows = rows_of(drawn, 7)
    raw = [r for r in rows if r["person"] != "all"]
    sizes, people = sorted({int(r["size"]) for r in rows}), list(dict.fromkeys(r["person"]
                                                                               for r in raw))
    assert sizes == [2, 3, 4] and len(people) == 2
    metrics = {r["metric"]: r["metric"].split(".")[0] for r in raw}
    table = {m: np.array([[next(float(r["mean"]) for r in raw
                                if (r["metric"], int(r["size"]), r["person"]) == (m, s, p))
                           for p in people] for s in sizes]) for m in metrics}
    # The raw means are means of recorded values.
    records = Store(small / "store").read("rows")
    psnr = next(m for m, name in metrics.items() if name == "psnr")
    recorded = records[(records["metric"] == psnr) & (records["method"] == "idfsr.ft")
                       & (records["scale"] == 16)]
    for i, person in enumerate(people):
        values = recorded.loc[recorded["person"] == person, "value"].to_numpy()
        for j in range(len(sizes)):
            pairs = (values[:, None] + values[None]) / 2
            assert np.abs(pairs - table[psnr][j, i]).min() < 1e-9
    scaled = {}
    for m, values in table.items():
        spread = values.max() - values.min()
        share = (values - values.min()) / spread if spread else np.full(values.shape, 0.5)
        scaled[metrics[m]] = share if metrics[m] in ("psnr", "ssim", "gender") else 1 - share
    curves = {"Pixels (PSNR, SSIM, LPIPS)": (scaled["psnr"] + scaled["ssim"] + scaled["lpips"]) / 3,
              "Attributes": (scaled["gender"] + scaled["age"]) / 2, "Identity (IDS)": scaled["ids"]}
    assert "Attributes: gender.agree@dlib, age.difference@dlib." in (drawn
                                                                     / "figure7.txt").read_text()
    for title, values in curves.items():
        for j, size in enumerate(sizes):
            got = next(r for r in rows if r["person"] == "all" and r["metric"] == title
                       and int(r["size"]) == size)
            assert float(got["mean"]) == pytest.approx(values[j].mean())
            assert np.isnan([float(got["low"]),
                             float(got["high"])]).all() and len(people) < 5  # too few for a band
    assert "these data allow 4 of 2" in (drawn / "figure7.txt").read_text()


def test_albums_grow_and_never_hold_a_test_image(small, drawn):
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.figures import album_size
    from fsrbench.reports.figures.context import Context

    context = Context(plan("mini", f"folder:{small / 'album'}", (), (), (), None, None, None),
                      open_store(str(small / "store")))
    chosen, sizes = album_size.sizes_of(album_size.pools(context.samples.samples, 0))
    kept = {s.gt.digest for p in chosen for s in p.test}
    albums = [album_size.conditions(chosen, size) for size in sizes]
    for smaller, larger in zip(albums, albums[1:]):
        for a, b in zip(smaller, larger):
            assert a.id == b.id and a.reference == b.reference and b.album[:-1] == a.album
            assert not kept & {p.digest for p in b.album}
    with pytest.raises(FsrError, match="figure 7: people have 2 images"):
        album_size.sizes_of([album_size.Pool("a", chosen[0].order[:2], chosen[0].test)])


def test_the_normalisation_of_figure_8_by_hand(drawn):
    rows = rows_of(drawn, 8)
    assert {r["method"] for r in rows} == {f"idfsr.case{case}" for case in range(6)}
    lower = ("lpips", "fd", "kd", "ids", "piqe", "fid", "kid")
    for metric in {r["metric"] for r in rows}:
        part = [r for r in rows if r["metric"] == metric]
        ranked = sorted(part, key=lambda r: float(r["mean"]), reverse=metric.split(".")[0] in lower)
        low, high = float(ranked[0]["mean"]), float(ranked[-1]["mean"])
        assert float(ranked[0]["normalised"]) == 0 and float(ranked[-1]["normalised"]) == 1
        for r in part:
            assert float(r["normalised"]) == pytest.approx((float(r["mean"]) - low) / (high - low))


def test_cross_identity_distances_by_hand(small, drawn):
    """IDS to A of a restoration with A's embedding, from the embeddings of a fresh extraction."""
    from fsrbench.engine.options import open_store, plan
    from fsrbench.metrics import get_feature
    from fsrbench.reports.figures import transfer
    from fsrbench.reports.figures.context import Context

    store = open_store(str(small / "store"))
    context = Context(plan("mini", f"folder:{small / 'album'}", (), (), (), None, None, None),
                      store)
    own, cross, other, found = transfer.measure(context)
    i, sample = 1, own.samples[1]
    targets = [s for s in own.samples if s.person == other[sample.person]]
    assert other[sample.person] != sample.person and len(targets) == 3
    image = cross.image("idfsr.ft", 16, sample.id)
    embed = get_feature("dlib-chip@1").function
    a = embed([image], [sample.gt.landmarks.points])[0]
    b = embed([s.gt.image for s in targets], [s.gt.landmarks.points for s in targets])
    by_hand = np.mean([1 - a @ v / np.linalg.norm(a) / np.linalg.norm(v) for v in b])
    assert found["cross_to_a"][i] == pytest.approx(by_hand, abs=1e-5)
    assert (image != own.image("idfsr.ft", 16, sample.id)).any()
    got = rows_of(drawn, 5)[i]
    assert got["sample"] == sample.id and float(got["cross_to_a"]) == pytest.approx(by_hand,
                                                                                    abs=1e-5)
    # The fit is A's own, the one that A's images are restored with.
    assert len(list((small / "store" / "fits").iterdir())) == 2 + 2 * 3


def test_the_ladder_ends_without_the_person(small, drawn):
    from fsrbench.reports.figures.degraded_reference import ladder

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    steps = ladder()
    spread = [step.apply(image, "a/b").astype(float).std() for step in steps]
    assert spread[0] > spread[-1]
    rows = [r for r in rows_of(drawn, 14) if r["metric"] == "psnr"]
    assert [r["step"] for r in rows if r["method"] == "idfsr.pt"] == ["0", *[step.name
                                                                             for step in steps]]


def test_the_commands_write_what_they_say(invoke, small, tmp_path):
    """`invoke figure --n 2 --number 10` and `invoke ablation --case 4` beside the default."""
    store = small / "store"
    data = ("--data", f"folder:{small / 'album'}")
    done = invoke("figure", "--n", "2", "--number", "10", *data, "--store", store, "--out",
                  tmp_path, check=0)
    assert done.stdout.count("Figure ") == 2 and (tmp_path / "figure2.svg").exists()
    assert (tmp_path / "figure10.png").exists()
    done = invoke("ablation", "--case", "4", *data, "--store", store, "--out", tmp_path, check=0,
                  FSRBENCH_CACHE=str(small / "weights"))
    assert "Default" in done.stdout and "without z_id" in done.stdout
    assert "Case 1" not in done.stdout
    assert "each trained on 24,000 images" in done.stdout
    assert "normalised (1 the best of these rows, 0 the worst)" in done.stdout
    rows = list(csv.DictReader((tmp_path / "ablation-normalised.csv").open()))
    assert {float(r["normalised"]) for r in rows} <= {0.0, 0.5, 1.0} and {r["scale"]
                                                                          for r in rows} == {"16"}
    from fsrbench.engine.results import results
    from fsrbench.engine.store import Store

    kept = results(Store(store), "mini")
    raw = {r["method"]: float(r["mean"]) for r in rows if r["metric"] == "ids.cosine@dlib"}
    assert kept["ablation/case4/ids"].value == pytest.approx(raw["idfsr.case4"], rel=1e-5)
    change = kept["ablation/case4/ids-default"]
    assert change.value == pytest.approx(raw["idfsr.case4"] - raw["idfsr.case0"], abs=1e-6)
    assert np.isnan(change.low) and "2 people" in change.note  # too few for an interval
    assert kept["ablation/default/ids"].value == pytest.approx(raw["idfsr.case0"], rel=1e-5)


def test_unequal_training_is_refused(small, drawn, tmp_path, monkeypatch):
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.tables import ablation

    card = small / "weights" / "idfsr-mini-case3.json"
    kept = card.read_text()
    card.write_text(json.dumps({"images_seen": 12000, "started_from": {}}))
    try:
        options = plan("mini", f"folder:{small / 'album'}", ("16",), ablation.methods_of([3]),
                       ("psnr",), None, None, None)
        with pytest.raises(FsrError,
                           match="not trained alike: idfsr-mini-case0 saw 24,000 .* "
                                 "idfsr-mini-case3 saw 12,000"):
            ablation.ablation(options, open_store(str(small / "store")), tmp_path)
    finally:
        card.write_text(kept)

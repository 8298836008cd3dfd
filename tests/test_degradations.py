"""Degradations: operators against SciPy, PyTorch, Pillow and theory; draws against the tables; the
same image everywhere."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy import stats

from fsrbench.datasets.degradations import eq10, second_order, severity
from fsrbench.degrade import kernels, pixels
from fsrbench.degrade.named import SCALES, degradation, degradations, get_degradation
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.imaging import image_digest
from fsrbench.reports.pages.ladder import ladder

NAMES = list(degradations())
IDS = [f"person{i}/{i % 7}.png" for i in range(4000)]


def blob(size=64) -> np.ndarray:
    """A smooth face-like disc with edges, a flat square and fine texture, made of whole numbers
    only."""
    y, x = np.mgrid[:size, :size]
    disc = (2 * (x - size // 2)) ** 2 + (y - size // 2) ** 2 < (3 * size // 4) ** 2
    image = np.stack([60 + 120 * disc + x * 60 // size, 40 + 110 * disc + y * 50 // size,
                      90 + 60 * disc], -1)
    image[size // 4:size // 3, size // 4:size // 2] = (20, 30, 200)
    image[::3, ::5] += 25
    return image.astype(np.uint8)


# --- draws ----------------------------------------------------------------------------------------

def uniform(values, low, high):
    """Whether values fill a range evenly, and never leave it."""
    assert min(values) >= low and max(values) <= high
    assert stats.kstest((np.asarray(values) - low) / (high - low), "uniform").pvalue > 1e-4


def shares(counts, expected):
    """Whether counts are of these probabilities."""
    assert stats.chisquare(counts, np.asarray(expected) * sum(counts)).pvalue > 1e-4


@pytest.mark.parametrize("preset", eq10.PRESETS, ids=lambda p: p.name)
def test_eq10_draws_from_its_table(preset):
    drawn = [preset.draw(name) for name in IDS]
    isotropic = [d for d in drawn if d.sigma_x == d.sigma_y]
    shares([len(isotropic), len(drawn) - len(isotropic)], [0.5, 0.5])
    oblong = [d for d in drawn if d.sigma_x != d.sigma_y]
    uniform([d.sigma_x for d in drawn], *preset.sigma)
    uniform([d.sigma_y for d in oblong], *preset.sigma)
    uniform([d.theta for d in oblong], -np.pi, np.pi)
    uniform([d.r for d in drawn], *preset.r)
    uniform([d.delta for d in drawn], *preset.delta)
    assert {d.q for d in drawn} == set(range(preset.q[0], preset.q[1]))
    shares(np.bincount([d.q - preset.q[0] for d in drawn]),
           np.full(preset.q[1] - preset.q[0], 1 / (preset.q[1] - preset.q[0])))
    assert len(drawn[0].kernel(512)) == 41 and len(drawn[0].kernel(256)) == 21
    assert len(drawn[0].kernel(64)) == 7


@pytest.mark.parametrize("setting", [second_order.REALESRGAN, second_order.STABLESR],
                         ids=lambda s: s.name)
def test_second_order_draws_from_its_table(setting):
    drawn = [second_order.draw(setting, name) for name in IDS]
    shares([sum(d.jpeg_last for d in drawn), sum(not d.jpeg_last for d in drawn)], [0.5, 0.5])
    shares([sum(d.sinc is None for d in drawn), sum(d.sinc is not None for d in drawn)], [0.2, 0.8])
    assert abs(sum(d.spared for d in drawn) - setting.spared
               * len(drawn)) <= 4 * np.sqrt(setting.spared * len(drawn))
    for ranges, of in ((setting.first, [d.first for d in drawn]),
                       (setting.second, [d.second for d in drawn])):
        blurred = sum(d.kernel is not None for d in of)
        assert blurred == len(of) if ranges.blur == 1 else shares([blurred, len(of) - blurred],
                                                                 [ranges.blur,
                                                                  1 - ranges.blur]) is None
        up, down = [d.factor for d in of if d.factor > 1], [d.factor for d in of if d.factor < 1]
        shares([len(up), len(down), len(of) - len(up) - len(down)], ranges.ways)
        uniform(up, 1, ranges.resize[1])
        uniform(down, ranges.resize[0], 1)
        shares([sum(d.mode == m for d in of) for m in pixels.MODES], [1 / 3] * 3)
        shares([sum(d.gaussian for d in of), sum(not d.gaussian for d in of)], [0.5, 0.5])
        shares([sum(d.grey for d in of), sum(not d.grey for d in of)], [0.4, 0.6])
        uniform([d.amount for d in of if d.gaussian], *ranges.noise)
        uniform([d.amount for d in of if not d.gaussian], *ranges.poisson)
        uniform([d.quality for d in of], *ranges.jpeg)


def test_kernels_of_the_second_order_are_of_six_shapes_and_a_sinc(monkeypatch):
    asked = []
    monkeypatch.setattr(second_order, "blur_kernel",
                        lambda kind, size, *rest: asked.append((kind, size, *rest)))
    monkeypatch.setattr(second_order, "sinc_kernel",
                        lambda size, cutoff: asked.append(("sinc", size, cutoff)))
    for name in IDS:
        second_order.draw_kernel(np.random.default_rng(len(asked)), second_order.REALESRGAN.first)
    names = [*kernels.KINDS, "sinc"]
    shares([sum(a[0] == n for a in asked) for n in names],
           [*(0.9 * s for s in second_order.KIND_SHARES), 0.1])
    shares([sum(a[1] == k for a in asked) for k in range(7, 22, 2)], [1 / 8] * 8)
    uniform([a[2] for a in asked if a[0] == "sinc" and a[1] < 13], np.pi / 3, np.pi)
    uniform([a[2] for a in asked if a[0] == "sinc" and a[1] >= 13], np.pi / 5, np.pi)
    bells = [a for a in asked if a[0] != "sinc"]
    for column, (low, high) in ((2, (0.2, 3)), (3, (0.2, 3)), (4, (-np.pi, np.pi))):
        uniform([a[column] for a in bells], low, high)
    for kind, (low, high) in (("generalized", (0.5, 4)), ("plateau", (1, 2))):
        betas = [a[5] for a in bells if a[0].startswith(kind)]
        assert min(betas) >= low and max(betas) <= high
        shares([sum(b <= 1 for b in betas), sum(b > 1 for b in betas)], [0.5, 0.5])


def test_severity_grows_from_nearly_nothing_to_nearly_nothing_left():
    levels = [severity.LEVELS[i] for i in range(1, 11)]
    for a, b in zip(levels, levels[1:]):
        assert a[0] < b[0] and a[1] < b[1] and a[2] < b[2] and a[3] > b[3]
    image = blob(128)
    errors = [np.mean((severity.spoil(image, i, "a").astype(float) - image) ** 2)
              for i in severity.LEVELS]
    assert errors == sorted(errors) and errors[0] < 40 < 1000 < errors[-1], errors
    assert np.std(severity.spoil(image, 10, "a")) < np.std(image)


# --- the registry ---------------------------------------------------------------------------------

# sha256 (first 16 digits) of what `blob` becomes. A change means that records of before and
# after would stand side by side under one key: raise the degradation's version, then write the new
# digest here. If nothing in the degradation was changed, a library was (OpenCV, PyTorch, SciPy,
# NumPy's generators), and the same holds.
DIGESTS = {
    "bicubic": ("bicubic@1",
        "61321c09d5ac4a77 61321c09d5ac4a77 0162d8d9d18c3b26"),
    "eq10-codeformer": ("eq10-codeformer@1",
        "e9741efde37213f7 300a974b6d57ee79 b32594048f163e7a"),
    "eq10-codeformer-small": ("eq10-codeformer-small@1",
        "0a6bbe88efd93664 a870428aa6f34b5e 163c6f351614a722"),
    "eq10-gfpgan": ("eq10-gfpgan@1",
        "04e5855eedbd11d4 f5bb28d535cbb2c1 e940a5a0651fa5cb"),
    "eq10-stablesr-face": ("eq10-stablesr-face@1",
        "1edb54aebdb0006e 68e5c91aa8ff1360 e5fd8fb384099ca0"),
    "realesrgan": ("realesrgan@1",
        "9fa7833cf31f87a1 3f39a66d5a228764 59b8c45fdf784ea0"),
    "severity-1": ("severity-1@1",
        "583a149ca5a62a06 217f3cd74e315825 7b6d4bea123222fe"),
    "severity-2": ("severity-2@1",
        "5144a78c32cb263e a9f895bd5b05100c 49abddb4e0144fb0"),
    "severity-3": ("severity-3@1",
        "2332b2ba248d7af2 238a1f8a91f72927 b88ba8cc28759dda"),
    "severity-4": ("severity-4@1",
        "898be966aaf0d2f8 1cf59c329732153b b8ea6470794ce2b3"),
    "severity-5": ("severity-5@1",
        "d55c210b74e8622c 9d04c07648f74a16 40b8ba725ee1ce80"),
    "severity-6": ("severity-6@1",
        "fab6b99fc269f8d1 245ed7144000073e cbed262a4c5f6af6"),
    "severity-7": ("severity-7@1",
        "260f2bfe2546b032 2abb1dc4e1ab6adb 5046140c5f34ed69"),
    "severity-8": ("severity-8@1",
        "234a495763979bee 31542aa0a738b350 93cb58cc51974c3a"),
    "severity-9": ("severity-9@1",
        "3a9608a8040c9804 d95a3ab7593779cb e2e4e39598c86fc2"),
    "severity-10": ("severity-10@1",
        "9d0e88785fff7dea e369484bd87ff820 55ef208169fa4075"),
    "stablesr-general": ("stablesr-general@1",
        "b87e09381ddfa82f 6751ce0cf199dd73 491d9a67f2020940"),
}


def degraded(job) -> str:
    """Digests of a degradation's LR images, for another process."""
    name, scale, ids = job
    return " ".join(image_digest(get_degradation(name).apply(blob(), scale, i))[:16]
                    for i in ids)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_makes_is_frozen(name):
    found = " ".join([degraded((name, 4, ["s1/3.pgm", "s2/1.pgm"])),
                      degraded((name, 32, ["s1/3.pgm"]))])
    assert (name, get_degradation(name).id, found) == (name, *DIGESTS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_degraded_alike_in_any_order_and_batch(name):
    found, images, ids = get_degradation(name), [blob(), blob()[::-1].copy(),
                                                 blob()[:, ::-1].copy()], IDS[:3]
    before = [image.copy() for image in images]
    for scale in SCALES:
        together = found.apply_batch(images, scale, ids)
        backwards = found.apply_batch(images[::-1], scale, ids[::-1])[::-1]
        assert together.dtype == np.uint8 and together.shape == (3, 64 // scale, 64 // scale, 3)
        assert np.array_equal(together, backwards)
        assert np.array_equal(together[1], found.apply(images[1], scale, ids[1]))
    assert all(np.array_equal(a, b) for a, b in zip(before, images))
    if found.full:
        assert found.full(images[0], ids[0]).shape == images[0].shape
    if name != "bicubic":
        many = {image_digest(found.apply(images[0], 4, i)) for i in IDS[:6]}
        assert len(many) >= (5 if found.full is None
                             else 6)  # a spared sample looks like another one


def test_another_process_with_other_threads_makes_the_same(tmp_path):
    jobs = [(name, 8, IDS[:1]) for name in NAMES]
    here = [degraded(job) for job in jobs]
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import test_degradations as "
            f"t; " \
            f"print(*[t.degraded(j) for j in {jobs!r}], sep='\\n')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
                               "PYTHONHASHSEED": "7"})
    assert done.stdout.splitlines() == here, done.stderr


def test_a_name_is_registered_once_and_an_unknown_one_is_told():
    with pytest.raises(FsrError, match="'bicubic': registered twice"):
        degradation("bicubic", 2, "again")(lambda image, scale, sample_id: image)
    with pytest.raises(FsrError, match="did you mean 'realesrgan'"):
        get_degradation("realesrgn")
    assert NAMES.index("severity-9") + 1 == NAMES.index("severity-10")
    assert all(d.summary and d.version >= 1 for d in degradations().values())


def test_the_milder_chain_spares_an_image_now_and_then():
    spared = next(i for i in IDS if second_order.draw(second_order.STABLESR, i).spared)
    same = get_degradation("stablesr-general").apply(blob(), 4, spared)
    assert np.array_equal(same, get_degradation("bicubic").apply(blob(), 4, spared))


def test_every_branch_of_the_second_order_runs_at_the_smallest_size():
    how = second_order.draw(second_order.REALESRGAN, "a")
    for first, second, last in ((how.first, how.second, True), (how.second, how.first, False)):
        for gaussian, grey in ((True, True), (True, False), (False, True), (False, False)):
            one = replace(how, first=replace(first, factor=0.15, gaussian=gaussian, grey=grey,
                                             amount=2.0, kernel=kernels.sinc_kernel(21, 2.0)),
                          second=replace(second, factor=0.3, gaussian=gaussian, grey=grey,
                                         kernel=None), jpeg_last=last)
            made = second_order.second_order(blob(), 32, one, np.random.default_rng(0))
            assert made.shape == (2, 2, 3) and made.dtype == np.uint8


# --- as a user types it ---------------------------------------------------------------------------

@pytest.fixture
def photograph(tmp_path):
    Image.fromarray(blob(150)[:, :131]).save(tmp_path / "some face.png")
    return tmp_path / "some face.png"


def check_page(path, panels: int) -> None:
    """The first panel is the centre square, cut to 128 px; white stands around it, and something in
    every row."""
    page = np.asarray(Image.open(path))
    assert page.shape[1] > min(panels, 6) * 128 and page.shape[0] > -(-panels // 6) * 128
    assert any(np.array_equal(page[y:y + 128, 8:136], blob(150)[11:139, 1:129])
               for y in range(40))
    assert (page[:4] == 255).all() and len(np.unique(page[-150:].reshape(-1, 3), axis=0)) > 20


def test_the_ladder_as_an_image(invoke, tmp_path, photograph):
    path = tmp_path / "new folder" / "ladder.png"
    done = invoke("degrade", "--name", "severity", "--image", photograph, "--out", path, check=0)
    assert done.stdout.strip() == str(path)
    check_page(path, 11)


def test_ladders_of_other_words(tmp_path, photograph):
    def page(panels, *words):
        path = ladder(*words, out=tmp_path / f"{len(list(tmp_path.iterdir()))}.png")
        check_page(path, panels)
        return path.read_bytes()
    page(6, "eq10-gfpgan", photograph)
    page(5, "bicubic", photograph)
    assert page(3, "realesrgan", photograph, ["8", "x4"]) == page(3, "realesrgan", photograph,
                                                                  ["8", "4"], "some face")
    assert page(11, "severity", photograph, ["16"], "a") != page(11, "severity", photograph, ["16"],
                                                                 "b")


@pytest.mark.parametrize("words,code,text", [
    (("--name", "realesr"), 2, "degradation 'realesr': unknown; did you mean 'realesrgan'?"),
    (("--name", "bicubic", "--scale", "5"), 2, "scale 5: impossible; known: 4, 8, 16, 32"),
    (("--name", "bicubic", "--scale", "two"), 2, "--scale two: is not a whole number"),
    (("--name", "severity", "--out", "/proc/nowhere/a.png"), 3,
     "--out /proc/nowhere/a.png: cannot be written")])
def test_wrong_words_end_in_one_line(invoke, photograph, words, code, text):
    done = invoke("degrade", *words, "--image", photograph, check=code)
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_wrong_images_end_in_one_line(invoke, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(blob(63)).save(tmp_path / "small.png")
    for image, text in (("nowhere.png", "cannot be read (No such file"),
                        ("text.png", "cannot be read"),
                        ("small.png", "is 63x63 px; give one of at least 64 px")):
        done = invoke("degrade", "--name", "bicubic", "--image", tmp_path / image)
        assert done.returncode in (2, 3) and text in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_table1_names_its_degradation(invoke, session_store, tmp_path):
    words = ("--method", "bicubic", "--people", "1", "--scale", "8", "--store", session_store.root,
             "--out", tmp_path)
    text = invoke("table1", *words, "--degradation", "severity-5", check=0).stdout
    assert "Degradation: severity-5@1, eq. 10 at level 5 of 10" in text
    assert ",severity-5@1," in (tmp_path / "table1.csv").read_text()
    done = invoke("table1", "--degradation", "severity-11", check=2)
    assert "degradation 'severity-11': unknown; did you mean 'severity-1" in done.stderr


def test_a_run_makes_the_images_that_apply_makes_and_mixes_no_two(quick_plan, tmp_path):
    from fsrbench.engine.run import Run

    store, values = Store(tmp_path / "store"), {}
    for name in ("bicubic", "severity-7", "severity-6"):
        plan = quick_plan(methods=("bicubic",), metrics=("psnr",), people="1")
        run = Run(replace(plan, degradation=name), store)
        outcome = run.execute()
        # nothing of another degradation is taken for it
        assert run.computed["restored"] == run.computed["measured"] == 5
        assert set(outcome.records["degradation"]) == {f"{name}@1"}
        for s in outcome.samples.samples:
            assert np.array_equal(run.lr(s, 8), get_degradation(name).apply(s.gt.image, 8, s.id))
        values[name] = outcome.records.loc[outcome.records["metric"].str.startswith("psnr"),
                                           "value"].mean()
    assert values["bicubic"] > values["severity-6"] > values["severity-7"]

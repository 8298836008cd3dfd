"""Near duplicates: what is done to a copy is seen through, photographs of one moment apart are
kept."""

import numpy as np
import pytest

from fsrbench.engine.copies import look, near_duplicates
from fsrbench.engine.data import open_source, prepare, verified
from fsrbench.engine.fixed import Fixed
from fsrbench.engine.samples import TRAINED_ON, load_samples
from fsrbench.engine.splits import fingerprint, fingerprint_distances, mirrored, signature
from fsrbench.engine.store import Store
from fsrbench.faces.prepare import Preparation, align
from fsrbench.imaging import encode_png, load
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]
HOW = Preparation(MINI.size, MINI.frame)


def cropped(image):
    """Without a twentieth on each side."""
    height, width = (round(n / 20) for n in image.shape[:2])
    return image[height:-height, width:-width]


def covered(image):
    """With a banner over the lowest fifth."""
    image = image.copy()
    image[round(0.8 * len(image)):] = (20, 20, 160)
    return image


CHANGES = {
    "mirrored": lambda image: image[:, ::-1],
    "cropped on one side": lambda image: image[:, image.shape[1] // 10:],
    "cropped on all sides": cropped,
    "gamma": lambda image: np.round((image / 255.0) ** 0.6 * 255).astype(np.uint8),
    "banner": covered,
}


def aligned(image):
    return align(np.ascontiguousarray(image), HOW)[0]


@pytest.fixture(scope="module")
def twelve(orl_root):
    """Images of twelve people, and what is compared of them."""
    images = [load(orl_root / f"s{n}" / "1.pgm") for n in range(1, 13)]
    return images, [look(aligned(image)) for image in images]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_seen_and_nobody_else(twelve, change):
    images, looks = twelve
    found = near_duplicates([look(aligned(CHANGES[change](image))) for image in images], looks)
    assert np.diag(found).sum() >= 11 and not (found & ~np.eye(12, dtype=bool)).any()


def test_photographs_of_one_person_are_kept(session_store):
    source = open_source("orl")
    entries = [e for e in source.entries if e.person in ("s2", "s3", "s4", "s5", "s8", "s16")]
    kept = prepare(source, verified(source, entries, session_store), HOW, session_store)
    looks = {p.entry.id: look(session_store.image(p.image)) for p in kept if not p.error}
    found, names = near_duplicates([*looks.values()], [*looks.values()]), [*looks]
    same = [name.split("/")[0] for name in names]
    pairs = {(names[i], names[j]) for i, j in np.argwhere(found) if i < j}
    assert sum(a == b for i, a in enumerate(same) for b in same[:i]) > 250
    assert pairs == {("s16/10.pgm", "s16/3.pgm")}  # two shots of one moment


def test_likeness_does_not_depend_on_order_or_size(twelve):
    images, looks = twelve
    copies = [look(aligned(CHANGES["mirrored"](image))) for image in images[:3]]
    large = [look(align(image, Preparation(256, MINI.frame))[0]) for image in images[:3]]
    assert (near_duplicates(copies, looks) == near_duplicates(copies[::-1], looks)[::-1]).all()
    assert near_duplicates(large, looks[:3]).diagonal().all()
    assert near_duplicates(copies, large).diagonal().all()


def test_no_changed_copy_serves_as_a_reference(album, tmp_path):
    """A mirrored copy of every image beside it."""
    for path in sorted(album.glob("*/*.pgm")):
        path.with_name(f"{path.stem}m.png").write_bytes(encode_png(load(path)[:, ::-1]))
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    for sample in samples.samples:
        stems = {p.id.partition(".")[0].rstrip("m") for p in sample.album}
        assert sample.id.partition(".")[0].rstrip("m") not in stems
    assert "near duplicate of a test image" in samples.excluded.reasons


def test_a_changed_copy_within_the_test_half_is_named(album, tmp_path):
    """Beside each test image its copy with a banner, in the same half."""
    lines = ["image,split"]
    for path in sorted(album.glob("*/*.pgm")):
        part = "test" if path.stem in "12" else "fine-tune"
        lines.append(f"{path.parent.name}/{path.name},{part}")
        if path.stem == "1":
            image = load(path).copy()
            image[-22:] = 255
            path.with_name("1banner.png").write_bytes(encode_png(image))
            lines.append(f"{path.parent.name}/1banner.png,test")
    (tmp_path / "split.csv").write_text("\n".join(lines))
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, 0,
                           Fixed(split=str(tmp_path / "split.csv")))
    (named,) = (names for reason, names in samples.excluded.remarks.reasons.items()
                if reason.startswith("test images that may be one photograph"))
    people = {name.partition("/")[0] for name in named}
    assert len(people) >= 2 and all(
        name == f"{name.partition('/')[0]}/1.pgm and {name.partition('/')[0]}/1banner.png"
        for name in named)


def test_the_fingerprint_of_a_mirrored_image_is_known(twelve):
    seen = signature(aligned(twelve[0][0]))[None]
    turned = signature(np.ascontiguousarray(aligned(twelve[0][0])[:, ::-1]))[None]
    assert fingerprint_distances(fingerprint(seen), fingerprint(turned)).min() > TRAINED_ON
    assert fingerprint_distances(fingerprint(mirrored(seen)), fingerprint(turned)).max() < 5

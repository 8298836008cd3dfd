"""The paper profile trains as the paper says: measured on its examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench.core import FaceImage, Person
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks, template
from fsrbench.faces.lr import lr_landmarks
from fsrbench.imaging import to_uint8
from fsrbench.methods.common.arcface import IResNet
from fsrbench.methods.common.unet import UNetConfig
from fsrbench.methods.idfsr.conditions import masked_and_warped
from fsrbench.methods.idfsr.configs import CONFIGS, DEVIATIONS, PAPER
from fsrbench.methods.idfsr.fitting import _examples
from fsrbench.methods.idfsr.network import IdfsrConfig, IdfsrNet
from fsrbench.methods.idfsr.training import RECIPES, IdfsrTask
from fsrbench.profiles import PROFILES
from fsrbench.proof.parity import filled
from fsrbench.rng import numpy_rng
from fsrbench.training import bank as banks
from fsrbench.training.bank import STILL, Bank, Faces, open_bank, read_bank
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTORS, downsampled, upsampled

PROFILE, TINT = PROFILES["paper"], (1.0, 0.8, 0.6)
NARROW = replace(PAPER, unet=replace(PAPER.unet, model_channels=32, style_channels=64,
                                     id_channels=128))


@pytest.fixture(scope="module")
def bank(tmp_path_factory, orl_root, session_store):
    """Of six tinted images: five of one person, one of another."""
    import shutil

    root = tmp_path_factory.mktemp("album")
    for person, count in (("s1", 5), ("s5", 1), ("s9", 2)):
        (root / person).mkdir()
        for n in range(1, count + 1):
            shutil.copy(orl_root / person / f"{n}.pgm", root / person)

    def encode(images, points):
        return torch.nn.functional.normalize(images.flatten(1)[:, :128] + 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: ["s9"])
        patch.setattr(banks, "_encoder", lambda profile: ("arcface", encode))
        found = read_bank(open_bank(f"folder:{root}", session_store, "paper", 0))
    for faces in (found.train, found.held):
        tint = torch.tensor(TINT)[:, None, None]
        faces.images = (faces.images.float() * tint).round().byte()
    return found


@pytest.fixture
def task(bank, monkeypatch):
    monkeypatch.setitem(CONFIGS, "paper", NARROW)
    return IdfsrTask(bank)


@pytest.fixture
def unwarped(task, monkeypatch):
    """A task whose warp, which takes most of the time, is left out."""
    monkeypatch.setattr("fsrbench.methods.idfsr.training.warped",
                        lambda face, *_: (face, torch.zeros_like(face[:, :1])))
    task.landmarks = lambda draws, points, I_L: points
    return task


def examples(task, n=12, step=0):
    with torch.no_grad():
        return task.examples(Draws("cpu").seed(0, step), task.bank.train, n)


def test_ground_truths_are_the_faces_or_their_mirror_images_and_nothing_else(unwarped):
    task, seen = unwarped, set()
    made, faces = examples(task, 24), task.bank.train
    off = torch.zeros(1, dtype=torch.bool)
    for x0, index in zip(made["x0"], made["index"]):
        own = faces.crops(Draws("cpu"), index[None], STILL, off, off)[0][0] * 2 - 1
        mirrored = [bool((x0 - face).abs().max() < 1e-5) for face in (own, own.flip(-1))]
        assert sum(mirrored) == 1
        seen.add(mirrored[1])
    assert seen == {False, True}
    # `mini` differs in every one of them, and turns a third grey.
    task.recipe = replace(RECIPES["mini"], detected=True)
    others = (examples(task, 24)["x0"] + 1) / 2
    grey = (others[:, 0] - others[:, 1]).abs().amax((1, 2)) < 1e-6
    assert 3 < grey.sum() < 16
    for x0, index in zip(others, made["index"]):
        own = faces.crops(Draws("cpu"), index[None], STILL, off, off)[0][0]
        assert min((x0 - own).abs().max(), (x0 - own.flip(-1)).abs().max()) > 0.1


def test_a_last_stretch_trains_the_timesteps_of_inference_alone(unwarped):
    all_of_them = examples(unwarped, 48)["t"]
    assert len(set(all_of_them.tolist())) > 40  # the paper's
    unwarped.recipe = replace(unwarped.recipe, kept=True)
    unwarped.kept = torch.tensor(CONFIGS["mini"].timesteps)
    made = examples(unwarped, 48)["t"]
    assert made.bincount().tolist() == [0] * 499 + [24] + [0] * 499 + [24]


def test_nobody_is_the_reference_of_the_own_image(unwarped):
    task = unwarped
    single = torch.nonzero(task.bank.train.count[task.bank.train.person] == 1).flatten()
    made = [examples(task, 12, step) for step in range(5)]
    index, partner = (torch.cat([m[name] for m in made]) for name in ("index", "partner"))
    assert len(single) == 1 and (index != partner).all() and not torch.isin(index, single).any()


def test_the_four_factors_are_equally_frequent(unwarped):
    found = []
    for step in range(3):
        made = examples(unwarped, 24, step)
        gt = (made["x0"] + 1) / 2
        ways = [torch.full((24,), FACTORS.index(f)) for f in (4, 8, 16, 32)]
        off = torch.stack([(upsampled(downsampled(gt, way), way) * 2 - 1 - made["I_L"]).abs()
                           .amax((1, 2, 3)) for way in ways])
        assert (off.min(0).values < 1e-5).all()
        found.append(off.argmin(0))
    shares = torch.bincount(torch.cat(found), minlength=4) / 72
    assert (shares > 0.15).all() and (shares < 0.35).all()


def test_conditions_are_those_of_a_restoration(task):
    """Mask and warp by the landmarks that are detected on this very I_L, of a reference that is not
    relit, as the benchmark makes them of one image."""
    made = examples(task, 12)
    I_L = ((made["I_L"] + 1) / 2).numpy()
    found = [lr_landmarks(image, PROFILE.frame) for image in to_uint8(I_L)]
    assert {f.source for f in found} >= {"landmarks-mini"}
    faces, off = task.bank.train, torch.zeros(12, dtype=torch.bool)
    own = faces.crops(Draws("cpu"), made["index"], STILL, off, off)[0] * 2 - 1
    flip = (made["x0"] - own).abs().amax((1, 2, 3)) > 1e-5
    references, marks = faces.crops(Draws("cpu"), made["partner"], STILL, flip, off)
    I_M, I_W, mask = masked_and_warped(I_L, [f.points for f in found], references.numpy(),
                                       marks.double().numpy(), "landmarks")
    apart = ((made["I_M"] != 0).any(1) != (I_M != 0).any(1)).float().mean((1, 2))
    # A detector is not sure of a face, or barely is: here the two may take another.
    same = apart < 0.01
    assert same.sum() >= 11, apart
    assert (made["I_W"] - I_W)[same].abs().mean() < 0.02
    # The region ends at the brows, and beside it stands the reference's first pixel.
    outside = (mask == 0).expand_as(I_W)
    assert torch.equal(I_W[outside], (references[:, :, :1, :1] * 2 - 1).expand_as(I_W)[outside])
    forehead = masked_and_warped(I_L, [f.points for f in found], references.numpy(),
                                 marks.double().numpy(), "forehead")[2]
    assert (forehead.sum((1, 2, 3)) > 1.2 * mask.sum((1, 2, 3))).all()


def test_z_id_is_as_long_as_normalised_features(task):
    assert torch.allclose(examples(task)["z_id"].norm(dim=1), torch.tensor(512**0.5), atol=1e-3)
    assert PAPER.z_id_scale == 512**0.5


def test_a_fit_sees_the_same_region():
    rng, points = np.random.default_rng(0), template(256, PROFILE.frame)
    album = tuple(FaceImage(str(i), str(i), rng.integers(1, 255, (256, 256, 3), np.uint8),
                            Landmarks(points, "template")) for i in range(2))
    made = {region: _examples(Person("s1", album), PROFILE, numpy_rng("x"), region)
            for region in ("landmarks", "forehead")}
    bare = {region: (m["I_W"] == 0).all(1).float().mean() for region, m in made.items()}
    assert bare["landmarks"] == 0 and bare["forehead"] > 0.3
    hidden = {region: (m["I_M"] == 0).all(1).float().mean() for region, m in made.items()}
    assert hidden["forehead"] > 1.2 * hidden["landmarks"] > 0.1


def test_equation_2_is_the_same_function_with_biases_greater_by_one():
    """(1 + t_s), (1 + z_f) of DiffAE and t_s, z_f of the paper, gradients included."""
    unet = UNetConfig(16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1,
                      attention_sizes=(8,), style_channels=24)
    torch.manual_seed(0)
    plus = IdfsrNet(IdfsrConfig(unet, (1, 2)))
    for p in plus.parameters():
        torch.nn.init.normal_(p, std=0.2)
    literal = IdfsrNet(IdfsrConfig(replace(unet, plus_one=False), (1, 2)))
    state = {key: value.clone() for key, value in plus.state_dict().items()}
    for key, value in state.items():
        if key.endswith("cond_emb_layers.1.bias"):
            value += 1
        elif key.endswith("emb_layers.1.bias"):
            value[:len(value) // 2] += 1
    literal.load_state_dict(state)
    x, t, z_s = torch.randn(2, 3, 16, 16), torch.tensor([3, 800]), torch.randn(2, 24)
    outs = [network.eval()(x, t, z_s) for network in (plus, literal)]
    assert torch.allclose(*outs, rtol=1e-4, atol=1e-4) and outs[0].abs().max() > 0.1
    for out in outs:
        out.square().mean().backward()
    slopes = [torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
              for network in (plus, literal)]
    assert (slopes[0] - slopes[1]).norm() < 1e-4 * slopes[0].norm()


def test_data_without_pairs_are_refused(bank):
    one = Faces(bank.train.images[:2], bank.train.points[:2], np.arange(2),
                bank.train.triangles[:2], bank.train.z_id[:2], 256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "paper", NARROW)
        with pytest.raises(FsrError, match="nobody in the data has two images; give a data set"):
            IdfsrTask(Bank(bank.origin, one, bank.held, bank.fingerprints))


def test_the_card_names_what_the_paper_leaves_open(task):
    card = task.card()
    assert card["deviations"] == DEVIATIONS["paper"] and len(card["deviations"]) > 10
    assert card["landmarks"] == task.detector.sources and "landmarks-mini" in card["landmarks"]
    assert card["training"]["jitter"]["grey"] == 0 and card["training"]["lpips"] == 0


@pytest.mark.parametrize("given, cause", [
    ("methods/weights/idfsr-mini.safetensors", "is of no such network"),
    ("other.ckpt", "is of no such network"), ("none.ckpt", "no such file"), (".", "is a folder"),
    ("words.ckpt", "is no file of weights"), ("cut.ckpt", "cannot be read as a checkpoint")])
def test_a_wrong_file_to_start_from_is_one_line(bank, monkeypatch, tmp_path, given, cause):
    monkeypatch.setitem(CONFIGS, "paper", NARROW)
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.ckpt")
    (tmp_path / "words.ckpt").write_text("hello")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "other.ckpt").read_bytes()[:99])
    path = given if "/" in given or given == "." else tmp_path / given
    with pytest.raises(FsrError, match=f"{path}:? {cause}") as caught:
        IdfsrTask(bank, init=str(path))
    assert "\n" not in str(caught.value)


def test_a_synthetic_identity_encoder_makes_no_bank(monkeypatch, tmp_path):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    torch.save(filled(IResNet((3, 4, 14, 3))).state_dict(), tmp_path / "arcface_r50.pth")
    with pytest.raises(FsrError, match="holds synthetic weights"):
        banks._encoder("paper")


def test_a_precision_of_no_training_is_named(invoke):
    done = invoke("train", "--what", "idfsr", "--precision", "fp8", check=2)
    assert "precision 'fp8': unknown" in done.stderr

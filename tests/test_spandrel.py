"""`spandrel:PATH` from a checkpoint in a published wrapper to an image: names, sizes, ranges,
noise, tiles."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsrbench import registry
from fsrbench.core import Batch, Profile
from fsrbench.engine.keys import code_digest
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.imaging import imresize
from fsrbench.methods import spandrel as spandrel_method
from fsrbench.methods.pgdiff.network import RestorerConfig, RrdbNet
from fsrbench.methods.spandrel import FACE_SIDE, tiled
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]
SCALES = (4, 8, 16)


class RealEsrgan(RrdbNet):
    """Real-ESRGAN x4 under its published keys: our own dense blocks, upsampled after the body."""

    def __init__(self, width: int = 8):
        super().__init__(RestorerConfig(3, 3, width, num_blocks=1, growth_channels=32))
        self.conv_first = torch.nn.Conv2d(3, width, 3, padding=1)

    def forward(self, x):
        h = self.conv_first(x)
        h = h + self.conv_body(self.body(h))
        for convolution in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))


def build(kind: str) -> torch.nn.Module:
    """A small network with random weights; those of GFPGAN have the one size that its detection
    knows."""
    spandrel = spandrel_method._spandrel()
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "esrgan":
            network = RealEsrgan()
            # So that the images are neither black nor flat.
            for convolution in (m for m in network.modules() if isinstance(m, torch.nn.Conv2d)):
                torch.nn.init.kaiming_normal_(convolution.weight, 0.2)
            network.conv_last.weight.data *= 0.1
            network.conv_last.bias.data += 0.5
        elif kind == "gfpgan":
            network = spandrel.architectures.GFPGAN.GFPGAN()
            for module in network.modules():
                if type(module).__name__ == "StyleConv":
                    torch.nn.init.constant_(module.weight, 0.1)  # a new one injects no noise
        elif kind == "restoreformer":
            network = spandrel.architectures.RestoreFormer.RestoreFormer(
                n_embed=16, embed_dim=32, ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1,
                attn_resolutions=(16,), resolution=512, z_channels=32)
        elif kind == "nafnet":
            network = spandrel.architectures.NAFNet.NAFNet(img_channel=3, width=8, middle_blk_num=1,
                                                           enc_blk_nums=[1], dec_blk_nums=[1])
            for name, parameter in network.named_parameters():
                if name.endswith(("beta", "gamma")):
                    torch.nn.init.constant_(parameter,
                                            0.5)  # a new one is the identity but for its ends
        elif kind == "drunet":
            network = spandrel.architectures.DRUNet.DRUNet(in_nc=4, out_nc=3, nc=[8, 8, 8, 8], nb=2)
        elif kind == "rcan":
            network = spandrel.architectures.RCAN.RCAN(scale=2, n_feats=8, n_resblocks=1,
                                                       n_resgroups=1, reduction=4)
        else:
            raise ValueError(kind)
    return network.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths by kind, each file made at its first use."""
    folder, made = tmp_path_factory.mktemp("given"), {}

    def get(kind: str):
        if kind not in made:
            made[kind] = folder / f"{kind.upper()}v1.4.pth"
            # Half precision as many are published; GFPGAN's file is large otherwise.
            torch.save({"params_ema": {k: v.half() for k, v in build(kind).state_dict().items()}},
                       made[kind])
        return made[kind]
    return get


def rounded(network: torch.nn.Module) -> torch.nn.Module:
    """A network with weights as they come back from the file."""
    return network.half().float()


def method(path, profile: Profile = MINI):
    return registry.get(f"spandrel:{path}")(profile)


def batch_of(scale: int, count: int = 2, size: int = 64, seed: int = 0) -> Batch:
    lr = np.random.default_rng(3).random((count, 3, size // scale, size // scale), dtype=np.float32)
    return Batch([f"p{i}/1" for i in range(count)], ["p"] * count, lr, scale, [None] * count, [],
                 [], seed=seed)


def one(batch: Batch, i: int) -> Batch:
    return Batch(batch.ids[i:i + 1], batch.people[i:i + 1], batch.lr[i:i + 1], batch.scale, [None],
                 [], [], seed=batch.seed)


def bicubic(images, side: int) -> np.ndarray:
    return np.clip(imresize(np.asarray(images), side, side), 0, 1)


# --- names and keys -------------------------------------------------------------------------------

def test_a_name_holds_no_path_and_a_file_is_one_class(files, tmp_path, monkeypatch):
    path = files("esrgan")
    cls = registry.get(f"spandrel:{path}")
    assert cls.name == "spandrel:ESRGANv1.4" and cls.title == "ESRGAN (ESRGANv1.4)"
    assert (cls.weights, cls.nfe, cls.needs) == ("given", 1, frozenset())
    monkeypatch.chdir(path.parent)
    assert registry.get(f"spandrel:{path.name}") is cls
    copy = tmp_path / "elsewhere" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert registry.get(f"spandrel:{copy}") is cls
    assert registry.resolve(f"spandrel:{path}",
                            "paper") == f"spandrel:{path}" and registry.family(cls.name) == cls.name
    assert cls.name not in registry.methods()
    odd = tmp_path / "my|net <1>$v.official.pth"
    odd.write_bytes(path.read_bytes())
    assert registry.get(f"spandrel:{odd}").name == "spandrel:my_net__1__v.official"
    assert registry.family("spandrel:my_net.official") == "spandrel:my_net.official"
    bare = tmp_path / "net-1.5"
    bare.write_bytes(path.read_bytes())
    assert registry.get(f"spandrel:{bare}").name == "spandrel:net-1.5"


def test_the_records_key_is_of_the_files_content(files, quick_plan, tmp_path):
    """Another file under the same name is another method to the store; the same file elsewhere is
    not."""
    def digest(path):
        run = Run(quick_plan(methods=(f"spandrel:{path}",)), Store(tmp_path / "store"))
        return run.method_digest(run.cells[0].method)

    network = build("esrgan")
    paths = [tmp_path / folder / "net.pth" for folder in "abc"]
    for path in paths:
        path.parent.mkdir()
        torch.save({"params": network.state_dict()}, path)
    network.conv_last.bias.data += 0.1
    torch.save({"params": network.state_dict()}, paths[1])
    first, second, third = map(digest, paths)
    assert first == third != second
    cls = registry.get(f"spandrel:{paths[0]}")
    assert cls.__module__ == spandrel_method.__name__ and code_digest(cls.__module__)


def test_a_second_run_reads_what_a_first_one_made(files, quick_plan, tmp_path):
    plan = quick_plan(methods=(f"spandrel:{files('esrgan')}",), metrics=("psnr",))
    assert Run(plan, Store(tmp_path)).execute().computed["restored"] == 10
    outcome = Run(plan, Store(tmp_path)).execute()
    assert not any(outcome.computed.values())
    assert set(outcome.records["method"]) == {"spandrel:ESRGANv1.4"}


def test_two_files_of_one_name_in_a_run_are_refused_and_one_file_typed_twice_is_one_row(
        files, quick_plan, tmp_path):
    path = files("esrgan")
    other, twin = tmp_path / path.name, tmp_path / "twin" / path.name
    twin.parent.mkdir()
    torch.save({"params": build("nafnet").state_dict()}, other)
    twin.write_bytes(path.read_bytes())
    said = "would share the name spandrel:ESRGANv1.4 with spandrel:.*rename one"
    with pytest.raises(FsrError, match=said) as caught:
        Run(quick_plan(methods=(f"spandrel:{path}", f"spandrel:{other}")),
            Store(tmp_path / "store"))
    assert caught.value.code == 2 and "\n" not in str(caught.value)
    run = Run(quick_plan(methods=("bicubic", f"spandrel:{path}", f"spandrel:{twin}")),
              Store(tmp_path / "store"))
    assert [c.method.name for c in run.cells] == ["bicubic", "spandrel:ESRGANv1.4"]


def test_a_file_that_changes_is_another_method(tmp_path):
    path = tmp_path / "changing.pth"
    torch.save({"params": build("esrgan").state_dict()}, path)
    first = method(path)
    torch.save({"params": build("nafnet").state_dict()}, path)
    second = method(path)
    assert first.name == second.name and first.settings() != second.settings()
    assert first.title != second.title
    spandrel_method._loaded.cache_clear()
    with pytest.raises(FsrError, match="has changed meanwhile"):
        first.restore(batch_of(8))


def test_a_prefix_is_registered_once():
    with pytest.raises(FsrError, match="registered twice"):
        registry.maker("spandrel", "PATH", str)(str)


# --- restorations ---------------------------------------------------------------------------------

# Faces take seconds an image, whatever the scale.
@pytest.mark.parametrize("kind,scale", [(k, s) for k in ("esrgan", "nafnet", "rcan", "drunet")
                                        for s in SCALES]
                         + [pytest.param("restoreformer", 16, marks=pytest.mark.full)])
def test_shape_range_repetition_and_batch(files, kind, scale):
    batch = batch_of(scale)
    given = method(files(kind))
    made = given.restore(batch)
    assert made.shape == (2, 3, 64,
                          64) and made.dtype == np.float32 and 0 <= made.min() < made.max() <= 1
    assert made.std() > 1e-3
    assert np.array_equal(made, given.restore(batch)) and np.array_equal(batch.lr,
                                                                         batch_of(scale).lr)
    alone = np.concatenate([given.restore(one(batch, i)) for i in range(2)])
    assert np.abs(alone - made).max() < 1e-4 and np.abs(made[0] - made[1]).max() > 1e-3


@pytest.mark.full
@pytest.mark.parametrize("scale", SCALES)
def test_gfpgan(files, scale):
    given, batch = method(files("gfpgan")), one(batch_of(scale), 0)
    made = given.restore(batch)
    assert made.shape == (1, 3, 64, 64) and 0 <= made.min() < made.max() <= 1 and made.std() > 1e-3
    if scale == 8:
        torch.manual_seed(99)
        both = given.restore(batch_of(scale))
        assert np.array_equal(made, both[:1])


@pytest.mark.parametrize("scale", SCALES)
def test_what_a_network_draws_is_the_samples_own(files, monkeypatch, scale):
    """A network of pure noise in GFPGAN's place: the same alone and in a batch, another for another
    sample or seed."""
    given, state = method(files("gfpgan")), torch.random.get_rng_state()
    monkeypatch.setattr(given.network.model, "forward",
                        lambda images: (torch.randn_like(images), []))
    batch = batch_of(scale, count=3)
    made = given.restore(batch)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert np.array_equal(made, np.concatenate([given.restore(one(batch, i)) for i in range(3)]))
    assert len({image.tobytes() for image in made}) == 3
    renamed = one(batch, 1)
    renamed.ids = ["other/1"]
    others = [renamed, one(batch_of(scale, count=3, seed=1), 1), one(batch_of(32, count=3), 1)]
    assert all(np.abs(made[1:2] - given.restore(other)).max() > 1e-3 for other in others)


def test_gfpgan_sees_512_pixels_in_minus_one_to_one(files, monkeypatch):
    """What reaches the network, and how its answer is read."""
    given, seen = method(files("gfpgan")), []
    assert given.resizing() == "64 -> 512 -> 64 px by antialiased bilinear, back by bicubic"
    answer = torch.linspace(-2, 2, FACE_SIDE).expand(1, 3, FACE_SIDE, FACE_SIDE)

    def forward(images):
        seen.append(images)
        return answer, []
    monkeypatch.setattr(given.network.model, "forward", forward)
    batch = batch_of(8)
    made = given.restore(batch)
    wanted = F.interpolate(torch.from_numpy(batch.upsampled), size=(512, 512),
                           mode="bilinear").clamp(0, 1) * 2 - 1
    assert [tuple(x.shape) for x in seen] == [(1, 3, 512, 512)] * 2
    assert (torch.cat(seen) - wanted).abs().max() < 1e-5
    assert np.abs(made[0] - bicubic((answer[0] + 1).clamp(0, 2) / 2, 64)).max() < 1e-6


def test_restoreformer_runs_at_512_in_its_own_range(files):
    batch = batch_of(8, count=1)
    y = F.interpolate(torch.from_numpy(batch.upsampled), size=(512, 512), mode="bilinear").clamp(0,
                                                                                                 1)
    with torch.no_grad():
        answer = rounded(build("restoreformer"))(y * 2 - 1)[0]
    wanted = bicubic(((answer + 1) / 2).clamp(0, 1), 64)
    assert np.abs(method(files("restoreformer")).restore(batch) - wanted).max() < 1e-4


@pytest.mark.parametrize("scale,calls", [(4, 1), (8, 1), (16, 2)])
def test_esrgan_against_our_own_network(files, scale, calls):
    """x4 once; x8 once and bicubic; x16 twice."""
    network, batch = rounded(build("esrgan")), batch_of(scale)
    with torch.no_grad():
        images = torch.from_numpy(batch.lr)
        for _ in range(calls):
            images = network(images).clamp(0, 1)
    assert np.abs(method(files("esrgan")).restore(batch) - bicubic(images, 64)).max() < 1e-5


def test_a_network_that_enlarges_too_far_comes_down(files):
    batch, network = batch_of(2), rounded(build("esrgan"))
    with torch.no_grad():
        wanted = bicubic(network(torch.from_numpy(batch.lr)).clamp(0, 1), 64)
    assert np.abs(method(files("esrgan")).restore(batch) - wanted).max() < 1e-5


def test_a_restorer_sees_the_enlarged_image(files):
    batch, network = batch_of(8), rounded(build("nafnet"))
    with torch.no_grad():
        wanted = network(torch.from_numpy(batch.upsampled)).clamp(0, 1)
    assert np.abs(method(files("nafnet")).restore(batch) - wanted.numpy()).max() < 1e-5


# --- tiles ----------------------------------------------------------------------------------------

LARGE = Profile("mini", 400, MINI.frame, "orl", None, 1)


def test_tiles_leave_no_seam(files, monkeypatch):
    """The network sees 19 pixels far: with that overlap the tiles agree with the whole, with less
    they do not."""
    batch, given = batch_of(4, count=1, size=400), method(files("esrgan"), LARGE)
    whole, sides = given.restore(batch), []
    inner = spandrel_method.call

    def watched(network, images):
        sides.append(tuple(images.shape[-2:]))
        return inner(network, images)
    monkeypatch.setattr(spandrel_method, "call", watched)
    monkeypatch.setattr(spandrel_method, "TILE", 64)
    monkeypatch.setattr(spandrel_method, "OVERLAP", 20)
    cut = given.restore(batch)
    assert len(sides) == 25 and max(max(s) for s in sides) == 64
    assert np.abs(cut - whole).max() < 1e-5
    monkeypatch.setattr(spandrel_method, "OVERLAP", 2)
    assert np.abs(given.restore(batch) - whole).max() > 1e-4


def test_tiles_of_any_shape():
    blur = torch.nn.Conv2d(3, 3, 5, padding=2)
    images = torch.rand(2, 3, 37, 90)
    with torch.no_grad():
        assert torch.allclose(tiled(blur, images, 1, 16, 3), blur(images), atol=1e-6)


@pytest.mark.parametrize("tiling", ["DISCOURAGED", "INTERNAL"])
def test_no_tiles_where_spandrel_advises_against_them(files, monkeypatch, tiling):
    spandrel, given = spandrel_method._spandrel(), method(files("nafnet"))
    sides, inner = [], spandrel_method.call
    monkeypatch.setattr(spandrel_method, "call", lambda n, x: sides.append(x.shape[-1])
                        or inner(n, x))
    monkeypatch.setattr(spandrel_method, "TILE", 32)
    monkeypatch.setattr(spandrel_method, "OVERLAP", 4)
    given.restore(batch_of(8))
    assert len(sides) > 1
    sides.clear()
    monkeypatch.setattr(given.network, "tiling", spandrel.ModelTiling[tiling])
    given.restore(batch_of(8))
    assert sides == [64]


def test_faces_are_never_cut(files, monkeypatch):
    given, sides, inner = method(files("restoreformer")), [], spandrel_method.call
    assert given.network.tiling is spandrel_method._spandrel().ModelTiling.SUPPORTED
    monkeypatch.setattr(spandrel_method, "call", lambda n, x: sides.append(x.shape[-1])
                        or inner(n, x))
    given.restore(batch_of(8, count=1))
    assert sides == [FACE_SIDE]

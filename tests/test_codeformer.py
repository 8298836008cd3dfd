"""CodeFormer: the smaller network's parts, its three trainings, and the official network's
argument."""

import numpy as np
import pytest
import torch
from conftest import example_of, judged_by_few, loss_of

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.imaging import enlarged_by_opencv, to_float
from fsrbench.methods.codeformer.network import MINI_CODEFORMER, CodeFormerNet
from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.official_codeformer import official
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import example
from fsrbench.proof.parity import filled
from fsrbench.training.draws import Draws
from fsrbench.training.export import export, export_named
from fsrbench.training.tasks import make
from fsrbench.weights import catalogue as weights


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CodeFormerNet().eval().requires_grad_(False)


def faces(n=2):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_nearest_code_is_the_nearest(network):
    z = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(2))
    flat = z.permute(0, 2, 3, 1).reshape(-1, 64).numpy()
    codes = network.codebook.weight.numpy()
    expected = ((flat[:, None] - codes) ** 2).sum(-1).argmin(1).reshape(2, 64)
    index = network.nearest(z)
    assert np.array_equal(index, expected)
    assert torch.equal(network.looked_up(index)[1, :, 3, 5],
                       network.codebook.weight[index[1, 3 * 8 + 5]])


def test_the_position_enters_queries_and_keys_only(network):
    """Against torch's own attention, written out."""
    layer, x = network.ft_layers[0], torch.randn(1, 64, MINI_CODEFORMER.width,
                                                 generator=torch.Generator().manual_seed(3))
    position, attention = network.position_emb, network.ft_layers[0].self_attn
    h = layer.norm1(x)
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    q, k, v = ((s @ w.T + b).unflatten(-1, (MINI_CODEFORMER.heads, -1)).transpose(1, 2)
               for s, w, b in ((h + position, w_q, b_q), (h + position, w_k, b_k), (h, w_v, b_v)))
    out = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
    x1 = x + attention.out_proj(out.transpose(1, 2).flatten(2))
    expected = x1 + layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm2(x1))))
    assert torch.allclose(layer(x, position), expected, atol=1e-5)


def test_fidelity_goes_from_codes_to_input(network):
    y = faces()
    zero, half, one = (network(y, w) for w in (0.0, 0.5, 1.0))
    z, _ = network.encoder(y)
    assert torch.allclose(zero, network.generator(adain(network.looked_up(network.logits(z)
                                                                          .argmax(-1)), z)))
    assert (half - zero).abs().max() > 1e-4 < (one - half).abs().max()


@pytest.mark.full
def test_the_official_network_listens_to_w():
    """spandrel's class ignores an argument called `w` without a word; ours must not."""
    with torch.device("meta"):
        assert sum(p.numel() for p in official().parameters()) == 94_112_707
    network, seen = official(), []
    network.fuse_convs_dict["32"].register_forward_pre_hook(lambda m, args: seen.append(args[2]))
    with torch.inference_mode():
        small = torch.zeros(1, 3, 512, 512)
        network(small, w=0.3)
        network(small)
        out = network(small, w=0.0)
    assert seen == [0.3, 0.5] and out.shape == (1, 3, 512, 512)


def test_enlargement_is_opencv_s_on_bytes():
    import cv2

    lr = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    ours = enlarged_by_opencv(to_float(lr), 512, "linear")
    assert np.array_equal(np.round(ours[0] * 255).transpose(1, 2, 0), cv2.resize(lr[0], (512, 512)))


def test_a_sample_does_not_depend_on_its_batch():
    method = registry.get("codeformer.mini")(PROFILES["mini"])
    method.stand_ins["network"] = filled(CodeFormerNet())
    batch = example(method, 8)
    alone = method.restore(batch)
    both = example(method, 8)
    both.lr, both.ids = np.concatenate([batch.lr, 1 - batch.lr]), ["noise/1", "noise/2"]
    together = method.restore(both)
    assert (together[:1] - alone).abs().max() < 1e-4 and (together[0]
                                                          - together[1]).abs().mean() > 1e-3


@pytest.fixture
def stage(album, session_store, monkeypatch):
    """Make a stage's training on two of three people."""
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    return lambda name, init=None: judged_by_few(make(
        f"codeformer-{name}", data=f"folder:{album}", store=session_store, seed=0, init=init))


def test_the_three_stages_follow_each_other(stage, tmp_path):
    """Each trains its own parts only, learns, and starts from the one before."""
    with pytest.raises(FsrError, match="starts from the stage before"):
        stage("codes").optimizer(1e-3)
    before = None
    for name in ("vq", "codes", "fusion"):
        task = stage(name, before)
        start = {k: v.clone() for k, v in task.model.state_dict().items()}
        optimizer, first = task.optimizer(1e-3), None
        for _ in range(8):
            optimizer.zero_grad()
            task.model.train()
            loss = loss_of(task, 3)
            first = first or loss.item()
            loss.backward()
            optimizer.step()
        task.model.eval()
        assert loss_of(task, 3).item() < first, name
        moved = {k for k, v in task.model.state_dict().items() if not torch.equal(v, start[k])}
        assert moved and all(k.startswith(task.trained) for k in moved), name
        assert task.grid(task.model).dtype == np.uint8
        assert np.isfinite(list(task.validate(task.model).values())).all()
        torch.save({"ema": task.model.state_dict(), "images": 128, "step": 8, "batch": 4,
                    "seconds": 1.0, "recipe": {}, "origin": dict(task.origin)}, tmp_path / "c.pt")
        before = str(tmp_path / f"{name}.safetensors")
        card = export(task, tmp_path / "c.pt", tmp_path / f"{name}.safetensors")
        assert card["stage"] == task.stage and card["started_from"].get("images_seen",
                                                                        0) == 128 * (task.stage - 1)


def test_the_last_stage_is_shipped_as_the_method_s_weights(stage, tmp_path, monkeypatch):
    monkeypatch.setattr("fsrbench.weights.catalogue.bundled_folder", lambda: tmp_path)
    monkeypatch.setattr("fsrbench.training.export.make",
                        lambda name, **_: stage(name.removeprefix("codeformer-")))
    for name in ("vq", "fusion"):
        torch.save({"ema": stage(name).model.state_dict(), "images": 8, "step": 1, "batch": 8,
                    "seconds": 1.0, "recipe": {}, "origin": {}}, tmp_path / "c.pt")
        export_named(f"codeformer-{name}", str(tmp_path / "c.pt"), None, profile="mini")
    assert {p.name for p in tmp_path.glob("*.safetensors")} == {"codeformer-vq-mini.safetensors",
                                                                "codeformer-mini.safetensors"}


def test_codes_that_nobody_uses_are_moved(stage):
    task = stage("vq")
    task.model.codebook.weight.data[7] = 1e3
    task.usage[7] = 0.0
    example = example_of(task, 0)
    task.loss(task.model.train(), example)
    with torch.no_grad():
        task.after(task.model, example, Draws("cpu"))
    assert task.usage[7] == 1 and task.model.codebook.weight.data[7].abs().max() < 100
    assert weights.get_entry("codeformer").sources

"""CUDA graphs of network calls, without a GPU: on a device that records what it does and does it
again, and on fake CUDA tensors."""

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsrbench.methods.common.norm import Norm
from fsrbench.methods.common.unet import UNet, UNetConfig
from fsrbench.methods.idfsr.configs import MINI
from fsrbench.methods.idfsr.network import IdfsrNet
from fsrbench.weights import graphs
from fsrbench.weights.graphs import Graphed, NotCapturable, Watched, graphed


class Tape(TorchDispatchMode):
    """A CUDA graph on the processor: `replay` does the same operators on the same memory."""

    def __init__(self):
        super().__init__()
        self.steps, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self.steps.append((function, args, kwargs or {}, output))
        return output

    def replay(self):
        self.replays += 1
        for function, args, kwargs, output in self.steps:
            for kept, new in zip(tree_leaves(output), tree_leaves(function(*args, **kwargs))):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """Graphs on the processor; all that were made."""
    made, stream = [], SimpleNamespace(wait_stream=lambda _: None, synchronize=lambda: None)

    def tape():
        made.append(Tape())
        return made[-1]
    monkeypatch.setattr(graphs, "KIND", "cpu")
    monkeypatch.setattr(graphs, "_stream", lambda place: stream)
    monkeypatch.setattr(graphs, "_pool", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda place=None: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: graph)
    return made


def filled(network):
    """The network with random weights, also where it starts at zero."""
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.05)
    return network.eval().requires_grad_(False)


def small():
    return filled(UNet(UNetConfig(16, model_channels=8, channel_mult=(1, 2), num_res_blocks=1,
                                  attention_sizes=(8,))))


def inputs(n=2, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, 3, 16, 16), torch.randint(0, 1000, (n,))


@pytest.mark.parametrize("half", [False, True])
def test_a_replayed_call_gives_what_a_call_gives(tapes, half):
    plain, network = small(), graphed(copy.deepcopy(small()))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        kept = [network(*inputs(seed=i)) for i in range(5)]
        wanted = [plain(*inputs(seed=i)) for i in range(5)]
    assert len(tapes) == 1 and tapes[0].replays == 4 and network.forward.state == "graph"
    # Outputs of earlier calls stay as they were, and so do the weights.
    assert all(torch.equal(a, b) for a, b in zip(kept, wanted))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert bool(network.forward.halves) is half


def test_each_form_has_a_graph_of_its_own_and_few_are_kept(tapes, monkeypatch):
    plain, network = small(), graphed(small())
    monkeypatch.setattr(graphs, "KEPT", 2)
    with torch.no_grad():
        for n in (1, 2, 1, 2, 3, 3, 1):
            assert torch.equal(network(*inputs(n, n)), plain(*inputs(n, n)))
        assert len(tapes) == 3 and len(network.forward.graphs) == 2
        with graphs.how(graphs=False):
            network(*inputs(3))
    assert tapes[2].replays == 1
    with torch.inference_mode():  # tensors of both kinds do not mix
        assert torch.equal(network(*inputs(3)), plain(*inputs(3)))


def test_what_is_trained_or_copied_runs_as_it_is(tapes):
    network = graphed(small())
    for _ in range(3):
        network(*inputs())
    x = inputs()[0].requires_grad_(True)
    network(x, inputs()[1]).sum().backward()
    assert not tapes and x.grad.abs().sum() > 0
    twin = copy.deepcopy(network)
    assert isinstance(twin.forward, Graphed) and twin.forward.network is twin
    assert network.state_dict().keys() == small().state_dict().keys()


def test_a_network_whose_calls_are_timed_is_graphed_once(tapes):
    from fsrbench.reports.gate.speed import Clock

    clock, network = Clock(), graphed(small())
    timed = clock.around(network).forward
    assert graphed(network).forward is timed
    with torch.no_grad():
        for i in range(3):
            network(*inputs(seed=i))
    assert len(clock.spans) == 3 and len(tapes) == 1 and network.forward is timed


def test_a_graphed_network_inside_a_graphed_one_is_part_of_its_graph(tapes):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = graphed(small())

        def forward(self, x, t):
            return {"twice": self.inner(x, t) * 2, "none": None}
    network, plain = graphed(Outer()), small()
    with torch.no_grad():
        found = [network(*inputs(seed=i))["twice"] for i in range(3)]
        assert torch.equal(found[2], plain(*inputs(seed=2)) * 2)
        assert len(tapes) == 1 and not network.inner.forward.graphs


class Reads(torch.nn.Module):
    """Reads the device."""

    def forward(self, x):
        return x * float(x.max()) if float(x.sum()) else x


def test_what_reads_the_device_is_never_captured_and_says_so(tapes, capsys):
    network = graphed(Reads())
    graphs.refused()
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(network(torch.tensor([2.0, 3.0])), torch.tensor([6.0, 9.0]))
    assert not tapes
    assert "_local_scalar_dense waits for the device" in network.forward.state
    assert capsys.readouterr().err.count("note: Reads runs without a CUDA graph") == 1
    assert graphs.refused() == ("Reads without a CUDA graph: _local_scalar_dense waits for the "
                                "device") and not graphs.refused()


def test_a_capture_that_fails_leaves_the_call(tapes, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("CUDA error: operation not permitted\nmore")
    monkeypatch.setattr(torch.cuda, "graph", broken)
    network, plain = graphed(small()), small()
    with torch.no_grad():
        for i in range(3):
            assert torch.equal(network(*inputs(seed=i)), plain(*inputs(seed=i)))
    assert network.forward.state == "CUDA error: operation not permitted"
    assert "operation not permitted" in capsys.readouterr().err


def test_copies_between_devices_are_seen():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as fake, torch.no_grad():
        host = fake.from_tensor(torch.zeros(2))
        place = host.to("cuda")
        for work in (lambda: host.to("cuda"), lambda: place.cpu(), lambda: place.copy_(host),
                     lambda: place[place > 0]):
            with pytest.raises(NotCapturable), Watched():
                work()
        with Watched():
            assert (place * 2 + 1).to(torch.float16).device.type == "cuda"


@pytest.mark.parametrize("kind,most", [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_the_norm_of_a_gpu_is_that_of_the_processor(kind, most, monkeypatch):
    network, i = filled(IdfsrNet(MINI)), inputs()
    x = torch.nn.functional.interpolate(torch.cat([i[0], i[0]], 1), size=64)
    torch.manual_seed(1)
    z_s, z_id = torch.randn(2, 160), torch.randn(2, 128)
    with torch.no_grad(), torch.autocast("cpu", kind, enabled=kind != torch.float32):
        wanted = network(x, i[1], z_s, z_id).float()
        calls = []
        monkeypatch.setattr(Norm, "lean", staticmethod(lambda x: calls.append(x.dtype) or True))
        found = network(x, i[1], z_s, z_id).float()
    assert kind in calls and (found - wanted).abs().max() < most * wanted.abs().max()

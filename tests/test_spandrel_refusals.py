"""Files that `spandrel:PATH` refuses, each in one line."""


import pytest
import torch
from test_spandrel import build

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.methods import spandrel as spandrel_method

# --- refusals -------------------------------------------------------------------------------------


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def bad_file(kind: str, path):
    spandrel = spandrel_method._spandrel()
    if kind == "noise":
        path.write_bytes(b"not a checkpoint")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "code":
        torch.save({"params": Code()}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "numbers":
        torch.save({1: torch.zeros(3), 2: torch.zeros(3)}, path)
    elif kind == "unknown":
        torch.save({"params": {"strange.weight": torch.zeros(3)}}, path)
    elif kind == "truncated":
        state = build("esrgan").state_dict()
        del state["conv_body.bias"]
        torch.save(state, path)
    elif kind == "grey":
        network = spandrel.architectures.DnCNN.DnCNN(in_nc=1, out_nc=1, nc=8, nb=5)
        torch.save(network.state_dict(), path)
    elif kind == "inpainting":
        with torch.device("meta"):
            state = spandrel.architectures.LaMa.LaMa(in_nc=4, out_nc=3).state_dict()
        torch.save({k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in state.items()},
                   path)


UNREAD = "cannot be read as a checkpoint of tensors"
REFUSED = [
    ("missing", "no such file"), ("noise", UNREAD), ("empty", UNREAD), ("code", UNREAD),
    ("tensor", UNREAD), ("numbers", "holds no state dict"), ("unknown", "none that spandrel knows"),
    ("truncated", "is not the ESRGAN that it looks like"), ("grey", "has 1 channels in and 1 out"),
    ("inpainting", "is for inpainting and needs a mask")]


@pytest.mark.parametrize("kind,text", REFUSED)
def test_what_cannot_be_a_row_is_refused_in_one_line(tmp_path, kind, text, capsys):
    path = tmp_path / f"{kind}.pth"
    bad_file(kind, path)
    with pytest.raises(FsrError, match=text) as caught:
        registry.resolve(f"spandrel:{path}", "mini")
    error = caught.value
    assert error.code == 2 and error.remedy and "\n" not in str(error) and str(path) in error.thing
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["~nobody-of-that-name/x.pth", "x" * 300, ".",
                                      "nowhere/x.pth"])
def test_paths_that_lead_nowhere(argument):
    with pytest.raises(FsrError, match="no such file|cannot be read") as caught:
        registry.get(f"spandrel:{argument}")
    assert caught.value.code == 2 and caught.value.thing == f"method spandrel:{argument}"

"""CodeFormer (Zhou et al., NeurIPS 2022): a transformer guesses the codes of a face, a decoder
draws them, fusion of the encoder's features adds fidelity.

Source: sczhou/CodeFormer (NTU S-Lab License 1.0, non-commercial). The official network is that of
spandrel-extra-arches, which differs in no bit; here are the authors' pre- and post-processing, and
a smaller network of the same kind that is trained by this project.
"""

from __future__ import annotations

import torch

from fsrbench.core import Batch, Method, Part
from fsrbench.methods.codeformer.network import CodeFormerNet
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.official_codeformer import FIDELITY, LICENCE, NETWORK, SIDE, enlarged
from fsrbench.methods.common.resizing import resized, rule
from fsrbench.registry import method
from fsrbench.weights.catalogue import Bundled, WeightFile, register
from fsrbench.weights.networks import device

register(WeightFile("codeformer-mini", "codeformer-mini.safetensors", "", LFW_LICENCE,
                    "codeformer.mini (`invoke train --what codeformer-vq`, -codes, -fusion)",
                    (Bundled(),)))


class CodeFormerMethod(Method):
    """What both tags share."""

    title, paper, nfe = "CodeFormer", "codeformer", 1
    origin = "CodeFormer (NeurIPS 2022), sczhou/CodeFormer"
    native: int

    def settings(self) -> str:
        """The fidelity weight."""
        return f"w={FIDELITY}"

    def resizing(self) -> str:
        """To the network's side and back."""
        return rule(self.profile.size, (self.native,), "OpenCV's bilinear of the LR image")

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """I_L (N, 3, native, native) in [0, 1]."""
        raise TypeError(f"{self.name} upsamples nothing")

    @torch.no_grad()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]."""
        x0 = self.part("network")((self.enlarged(batch) * 2 - 1).to(device()))
        return resized(((x0.float() + 1) / 2).clamp(0, 1), batch.size).clamp(0, 1).cpu()


@method
class CodeFormerOfficial(CodeFormerMethod):
    """The authors' network on I_L as their script upsamples it. Their matching of grey images'
    tones is left out, as it would treat grey and colour images of a benchmark differently."""

    name, weights, licence, native = "codeformer.official", "official", LICENCE, SIDE
    parts = {"network": NETWORK}

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """Bilinear, by OpenCV."""
        return enlarged(batch)


@method
class CodeFormerMini(CodeFormerMethod):
    """The network trained here."""

    name, weights, profiles, native = "codeformer.mini", "mini", ("mini",), 64
    licence = "trained on LFW (research use)"
    parts = {"network": Part("codeformer-mini", CodeFormerNet,
                             lambda: (torch.zeros(1, 3, 64, 64),))}

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """Bicubic, as in its training."""
        return torch.from_numpy(batch.upsampled)

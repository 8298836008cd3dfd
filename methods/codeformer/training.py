"""`invoke train --what codeformer-vq`, then `-codes`, then `-fusion`: the three stages of the mini
CodeFormer.

Each stage starts from the exported weights of the one before (`--init`), and `-fusion` gives
codeformer-mini.
"""

from __future__ import annotations

import copy
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.errors import FsrError
from fsrbench.methods.codeformer.network import MINI_CODEFORMER, CodeFormerNet
from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.image_loss import LPIPS_WEIGHT, image_loss
from fsrbench.methods.common.prior_training import FaceTask
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS
from fsrbench.training.tasks import Example, Stage, held_out, sheet, trainable

# Weight of the encoder's commitment to its codes (VQ-VAE), and of the code-level feature loss
# beside cross-entropy.
COMMITMENT, FEATURE_WEIGHT = 0.25, 0.5
# A code used less often than this share of the mean is put where an image's latent lies.
DEAD, USAGE_DECAY = 0.1, 0.98


class StageTask(FaceTask):
    """What the stages share.

    Class attributes:
        trained: names of the submodules whose parameters are trained.
        stage: of the three, first = 1.
    """

    batch, lr, ema = 32, 6e-4, 0.999
    trained: tuple[str, ...]
    stage: int

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith(self.trained))

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """The usual one, for a stage that can start.

        Raises:
            FsrError: there are no weights of the stage before.
        """
        if self.stage > 1 and not self.origin:
            raise FsrError(f"training stage {self.stage} of codeformer",
                           "starts from the stage before",
                           "give its exported weights by --init", code=2)
        return super().optimizer(lr)

    def network(self) -> torch.nn.Module:
        """The network."""
        return CodeFormerNet(MINI_CODEFORMER)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Faces and I_L."""
        made = self.degraded(draws, faces, n)
        return {"x0": made["x0"], "y": made["y"]}

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """What validation and image show."""
        return model(example["y"])

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss, image loss of 256 held-out images, and of their bicubic upsampling
        (`base`)."""
        example = self.held(256)
        return {"held_out": held_out(self, model),
                "loss": float(image_loss(self.restored(model, example), example["x0"])),
                "base": float(image_loss(example["y"], example["x0"]))}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, ground truth of 16 held-out images."""
        example = self.held(16)
        return sheet([example["y"], self.restored(model, example), example["x0"]])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_CODEFORMER), "stage": self.stage, "factors": FACTORS,
                "factor_odds": FACTOR_ODDS, "deviations": [
                    f"64-pixel faces of LFW, 8x8 codes; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) "
                    f"without adversarial loss",
                    "bicubic factors instead of blind degradation; in the last stage only the "
                    "fusion is trained"]}


@trainable("codeformer-vq")
class CodebookTask(StageTask):
    """Stage I: encoder, codebook and generator draw clean faces."""

    trained, stage = ("encoder.", "codebook.", "generator."), 1
    stages = (Stage("codeformer-vq", "codeformer", 0, 0.4),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        self.usage = torch.ones(MINI_CODEFORMER.codes, device=self.device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """How often each code was used."""
        return {"usage": self.usage}

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Image, codebook and commitment; shown is the image's."""
        z = model.encoder(example["x0"])[0].float()
        index = model.nearest(z)
        codes = model.looked_up(index)
        example |= {"z": z.detach(), "codes": index}
        shown = image_loss(model.generator(z + (codes - z).detach()), example["x0"])
        return shown + F.mse_loss(codes,
                                  z.detach()) + COMMITMENT * F.mse_loss(z, codes.detach()), shown

    def after(self, model: torch.nn.Module, example: Example, draws: Draws) -> None:
        """Move codes that are hardly ever next to a latent to latents of this batch."""
        z, index = example["z"], example["codes"].flatten()
        used = torch.zeros_like(self.usage).index_add_(0, index,
                                                       torch.ones_like(index, dtype=torch.float32))
        moved = USAGE_DECAY * self.usage + (1 - USAGE_DECAY) * used / used.mean()
        dead, latents = moved < DEAD, z.flatten(2).transpose(1, 2).flatten(0, 1)
        chosen = latents[draws.below(len(dead), len(latents))]
        model.codebook.weight.copy_(torch.where(dead[:, None], chosen, model.codebook.weight))
        self.usage.copy_(torch.where(dead, torch.ones_like(moved), moved))

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """The ground truth through its codes."""
        return model.generator(model.looked_up(model.nearest(model.encoder(example["x0"])[0])))


@trainable("codeformer-codes")
class CodesTask(StageTask):
    """Stage II: encoder and transformer find the codes of the ground truth in I_L."""

    lr, trained, stage = 5e-4, ("encoder.", "feat_emb.", "position_emb", "ft_layers.",
                                "idx_pred_layer."), 2
    stages = (Stage("codeformer-codes", "codeformer", 1, 0.4),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        # The encoder of clean faces tells the codes; the model's own turns into one of degraded
        # faces.
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The teacher, which a resumed run must not take from where the model has got to."""
        return {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()}

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the codes, and distance of the latent from them; shown is the former."""
        with torch.no_grad():
            index = self.teacher.nearest(self.teacher.encoder(example["x0"])[0])
        z = model.encoder(example["y"])[0]
        crossed = F.cross_entropy(model.logits(z).float().flatten(0, 1), index.flatten())
        return crossed + FEATURE_WEIGHT * F.mse_loss(z.float(),
                                                     model.looked_up(index).detach()), crossed

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """By the codes alone."""
        return model(example["y"], w=0.0)


@trainable("codeformer-fusion")
class FusionTask(StageTask):
    """Stage III: fusion, at w = 1."""

    trained, stage, weights = ("generator.fusion_layer_",), 3, "codeformer-mini"
    stages = (Stage("codeformer-mini", "codeformer", 2, 0.2, goes_on="codeformer-mini"),)

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Image loss."""
        with torch.no_grad():
            z, taps = model.encoder(example["y"])
            codes = adain(model.looked_up(model.logits(z).argmax(-1)), z)
        loss = image_loss(model.generator(codes, taps, 1.0), example["x0"])
        return loss, loss

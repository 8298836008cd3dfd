"""`invoke train --what codeformer-vq`, then `-codes`, then `-fusion`: the three stages of the mini CodeFormer.

Each stage starts from the exported weights of the one before (`--init`), and `-fusion` gives codeformer-mini.
"""

from __future__ import annotations

import copy
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.errors import FsrError
from fsrbench.methods.adain import adain
from fsrbench.methods.codeformer import MINI_CODEFORMER, CodeFormerNet
from fsrbench.methods.picture_loss import LPIPS_WEIGHT, picture_loss
from fsrbench.methods.prior_training import FaceTask, crops
from fsrbench.methods.restorer_training import SCALE_ODDS, SCALES, enlarged, shrunk, strip
from fsrbench.rng import numpy_rng
from fsrbench.store import Store
from fsrbench.train import trainable

# Weight of the encoder's commitment to its codes (VQ-VAE), and of the code-level feature loss beside cross-entropy.
COMMITMENT, FEATURE_WEIGHT = 0.25, 0.5
# A code used less often than this share of the mean is put where a picture's latent lies.
DEAD, USAGE_DECAY = 0.1, 0.98


class StageTask(FaceTask):
    """What the stages share.

    Class attributes:
        trained: names of the submodules whose parameters are trained.
        stage: of the three, first = 1.
    """

    trained: tuple[str, ...]
    stage: int

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None):
        super().__init__(data, store, seed, init)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith(self.trained))

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """The usual one, for a stage that can start.

        Raises:
            FsrError: there are no weights of the stage before.
        """
        if self.stage > 1 and not self.origin:
            raise FsrError(f"training stage {self.stage} of codeformer", "starts from the stage before",
                           "give its exported weights by --init", code=2)
        return super().optimizer(lr)

    def network(self) -> torch.nn.Module:
        """The network."""
        return CodeFormerNet(MINI_CODEFORMER)

    def example(self, step: int, n: int, bank) -> tuple[torch.Tensor, torch.Tensor, np.random.Generator]:
        """x0 and y (n, 3, S, S) in [-1, 1], and the generator's rest."""
        rng = numpy_rng(self.seed, f"codeformer {self.stage}", step)
        faces = crops(bank, n, rng, self.jitter)
        return faces * 2 - 1, enlarged(shrunk(faces, rng), faces.shape[-1]), rng

    def restored(self, model: torch.nn.Module, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What validation and picture show."""
        return model(y)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Loss of 256 held-out pictures, and of their bicubic enlargement (`base`)."""
        x0, y, _ = self.example(-1, 256, self.held_out)
        return {"loss": float(picture_loss(self.restored(model, x0, y), x0)), "base": float(picture_loss(y, x0))}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, truth of 16 held-out pictures."""
        x0, y, _ = self.example(-1, 16, self.held_out)
        return strip([y, self.restored(model, x0, y), x0])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_CODEFORMER), "stage": self.stage, "scales": SCALES, "scale_odds": SCALE_ODDS,
                "deviations": [
                    f"64-pixel faces of LFW, 8x8 codes; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) without adversarial loss",
                    "bicubic factors instead of blind degradation; in the last stage only the fusion is trained"]}


@trainable("codeformer-vq")
class CodebookTask(StageTask):
    """Stage I: encoder, codebook and generator draw clean faces."""

    trained, stage = ("encoder.", "codebook.", "generator."), 1

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None):
        super().__init__(data, store, seed, init)
        self.usage = torch.ones(MINI_CODEFORMER.codes)

    def revive(self, model: torch.nn.Module, z: torch.Tensor, index: torch.Tensor, rng: np.random.Generator) -> None:
        """Move codes that are hardly ever next to a latent to latents of this batch."""
        counts = torch.bincount(index.flatten(), minlength=len(self.usage)).float()
        self.usage = USAGE_DECAY * self.usage + (1 - USAGE_DECAY) * counts / counts.mean()
        dead = torch.nonzero(self.usage < DEAD)[:, 0]
        if len(dead):
            flat = z.detach().float().transpose(1, -1).reshape(-1, z.shape[1])
            model.codebook.weight.data[dead] = flat[rng.integers(0, len(flat), len(dead))]
            self.usage[dead] = 1.0

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Picture, codebook and commitment."""
        x0, _, rng = self.example(step, batch, self.bank)
        z = model.encoder(x0)[0].float()
        index = model.nearest(z)
        codes = model.looked_up(index)
        drawn = model.generator(z + (codes - z).detach())
        if model.training:
            self.revive(model, z, index, rng)
        return picture_loss(drawn, x0) + F.mse_loss(codes, z.detach()) + COMMITMENT * F.mse_loss(z, codes.detach())

    def restored(self, model: torch.nn.Module, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The truth through its codes."""
        return model.generator(model.looked_up(model.nearest(model.encoder(x0)[0])))


@trainable("codeformer-codes")
class CodesTask(StageTask):
    """Stage II: encoder and transformer find the codes of the truth in I_L."""

    trained, stage = ("encoder.", "feat_emb.", "position_emb", "ft_layers.", "idx_pred_layer."), 2

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None):
        super().__init__(data, store, seed, init)
        # The encoder of clean faces tells the codes; the model's own turns into one of degraded faces.
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Cross-entropy of the codes, and distance of the latent from them."""
        x0, y, _ = self.example(step, batch, self.bank)
        with torch.no_grad():
            index = self.teacher.nearest(self.teacher.encoder(x0)[0])
        z = model.encoder(y)[0]
        logits = model.logits(z).float()
        return F.cross_entropy(logits.flatten(0, 1), index.flatten()) \
            + FEATURE_WEIGHT * F.mse_loss(z.float(), model.looked_up(index).detach())

    def restored(self, model: torch.nn.Module, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """By the codes alone."""
        return model(y, w=0.0)


@trainable("codeformer-fusion")
class FusionTask(StageTask):
    """Stage III: fusion, at w = 1."""

    trained, stage, weights = ("generator.fusion_layer_",), 3, "codeformer-mini"

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Picture loss."""
        x0, y, _ = self.example(step, batch, self.bank)
        with torch.no_grad():
            z, taps = model.encoder(y)
            codes = adain(model.looked_up(model.logits(z).argmax(-1)), z)
        return picture_loss(model.generator(codes, taps, 1.0), x0)

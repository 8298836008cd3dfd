"""`invoke train --what restorer` and `--what corrector`: the regressions that the `mini` baselines need beside the prior."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fsrbench.imaging import imresize, to_uint8
from fsrbench.methods.corrector import MINI_CORRECTOR, Corrector, grid_of, spread_on_grid
from fsrbench.methods.diffusion import linear_schedule, posterior_at, q_sample, stratified
from fsrbench.methods.prior_training import FaceTask, crops
from fsrbench.methods.restorer import BLIND, MINI_RESTORER, blindly
from fsrbench.methods.unet import UNet
from fsrbench.rng import numpy_rng
from fsrbench.train import trainable

# Factors of the bicubic degradation, and how often; 1 and 2 so that the enhancer leaves what is sharp.
SCALES, SCALE_ODDS = (1, 2, 4, 8, 16, 32), (0.05, 0.1, 0.15, 0.3, 0.3, 0.1)


def shrunk(faces: torch.Tensor, rng: np.random.Generator) -> list[np.ndarray]:
    """LR pictures of faces (N, 3, S, S) in [0, 1], each by a random factor: uint8 (h, w, 3)."""
    sides = [faces.shape[-1] // s for s in rng.choice(SCALES, len(faces), p=SCALE_ODDS)]
    return [to_uint8(imresize(face.numpy()[None], side, side))[0] for face, side in zip(faces, sides)]


def enlarged(small: list[np.ndarray], side: int) -> torch.Tensor:
    """Bicubic enlargement (N, 3, side, side) of LR pictures, in [-1, 1]."""
    up = [np.clip(imresize(image.transpose(2, 0, 1) / 255, side, side), 0, 1) for image in small]
    return torch.from_numpy(np.stack(up).astype(np.float32)) * 2 - 1


def strip(rows: list[torch.Tensor]) -> np.ndarray:
    """Rows of pictures (N, 3, S, S) in [-1, 1] as one uint8 picture."""
    grid = torch.cat([torch.cat(list((row + 1) / 2), -1) for row in rows], -2)
    return (grid.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()


class _Regression(FaceTask):
    """What both share: faces and their LR pictures."""

    name: str

    def example(self, step: int, n: int, bank) -> tuple[torch.Tensor, list[np.ndarray], np.random.Generator]:
        """Faces (n, 3, S, S) in [-1, 1], their LR pictures, and the generator's rest."""
        rng = numpy_rng(self.seed, self.name, step)
        faces = crops(bank, n, rng, self.jitter)
        return faces * 2 - 1, shrunk(faces, rng), rng


@trainable("restorer")
class RestorerTask(_Regression):
    """The mini restorer: half of the examples with x_t, half without."""

    name = "restorer"

    def network(self) -> torch.nn.Module:
        """The U-Net of six channels."""
        return UNet(MINI_RESTORER)

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Mean squared error of x0."""
        x0, small, rng = self.example(step, batch, self.bank)
        index = stratified(batch, 1000, rng)
        x_t = q_sample(linear_schedule(), x0, index, torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)))
        blind = torch.from_numpy(rng.random(batch) < 0.5)
        x_t = torch.where(blind[:, None, None, None], 0.0, x_t)
        output = model(torch.cat([x_t, enlarged(small, x0.shape[-1])], 1), torch.where(blind, BLIND, index))
        return (output.float() - x0).square().mean()

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """PSNR of 256 held-out pictures without x_t, and of their bicubic enlargement (`base`)."""
        x0, small, _ = self.example(-1, 256, self.held_out)
        y = enlarged(small, x0.shape[-1])

        def psnr(images):
            return float((-10 * (((images.clamp(-1, 1) - x0) / 2).square().mean((1, 2, 3)) + 1e-6).log10()).mean())
        return {"psnr": psnr(blindly(model, y)), "base": psnr(y)}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, truth of 16 held-out pictures."""
        x0, small, _ = self.example(-1, 16, self.held_out)
        y = enlarged(small, x0.shape[-1])
        return strip([y, blindly(model, y), x0])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_RESTORER), "scales": SCALES, "deviations": [
            "one U-Net instead of SwinIR (DifFace), RRDBNet (PGDiff) and SPARNetHD (DR2); 64-pixel faces of LFW",
            "trained on bicubic factors instead of blind degradation; as an enhancer not on outputs of DR2"]}


@trainable("corrector")
class CorrectorTask(_Regression):
    """The mini corrector of DPI, by the loss of its authors."""

    name = "corrector"

    def network(self) -> torch.nn.Module:
        """The corrector."""
        return Corrector(MINI_CORRECTOR)

    def prediction(self, model: torch.nn.Module, step: int, n: int, bank) -> tuple[torch.Tensor, ...]:
        """Corrected grids, true grids, given grids, all (n, 3, S, S) and zero off the grid."""
        x0, small, rng = self.example(step, n, bank)
        schedule, on_grid = linear_schedule(), grid_of(x0.shape[-1])
        given = spread_on_grid(small, x0.shape[-1])
        index = stratified(n, len(schedule), rng)
        noise, more = (torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)) for _ in range(2))
        mean, log_variance = posterior_at(schedule, given, q_sample(schedule, given, index, noise), index)
        state = mean + (0.5 * log_variance).exp() * more
        return model(state * on_grid, index, given * on_grid) * on_grid, x0 * on_grid, given * on_grid

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Mean squared error on the grid; positions off it count as zeros, as in the official loss."""
        corrected, true, _ = self.prediction(model, step, batch, self.bank)
        return (corrected.float() - true).square().mean()

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Mean squared error on the grid of 256 held-out pictures, of the corrected and of the given values."""
        corrected, true, given = self.prediction(model, -1, 256, self.held_out)
        return {"mse": float((corrected - true).square().mean() * 4), "base": float((given - true).square().mean() * 4)}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: given, corrected, true grids of 16 held-out pictures."""
        corrected, true, given = self.prediction(model, -1, 16, self.held_out)
        return strip([rows[..., ::2, ::2] for rows in (given, corrected, true)])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_CORRECTOR), "scales": SCALES, "deviations": [
            "64-pixel faces of LFW; one corrector for all factors, where the authors train one for each"]}

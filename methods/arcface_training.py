"""`invoke train --what arcface`: the ArcFace encoder of the `mini` profile, so that what conditions is not what judges.

Trained on LFW people that the protocol does not draw, with the ArcFace loss; every picture first becomes a crop of the
profile's size, as it will be in use.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.bank import FaceBank, Jitter, load_bank, sample_similarity
from fsrbench.core import PROFILES
from fsrbench.data import divided, open_source
from fsrbench.faces.align import arcface_frame
from fsrbench.methods.arcface import arcface_logits
from fsrbench.methods.idfsr.identity import MINI_SIZE, mini_arcface
from fsrbench.rng import numpy_rng, seed_of
from fsrbench.store import Store
from fsrbench.train import Task, trainable


class _Classifier(torch.nn.Module):
    """The encoder, and the class centres that only training needs."""

    def __init__(self, classes: int):
        super().__init__()
        self.encoder = mini_arcface()
        self.centres = torch.nn.Parameter(torch.randn(classes, 512) * 0.01)

    def forward(self, crops: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
        return arcface_logits(self.encoder(crops).float(), self.centres, labels, margin=margin)


def augment(crops: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random brightness, contrast, colour cast, blur by resampling, and one erased rectangle; (N, 3, S, S) in [0, 1]."""
    n, size = len(crops), crops.shape[-1]

    def uniform(low, high, channels=1):
        return torch.from_numpy(rng.uniform(low, high, (n, channels, 1, 1)).astype(np.float32))
    crops = ((crops - 0.5) * uniform(0.7, 1.3) + 0.5 + uniform(-0.15, 0.15)) * uniform(0.9, 1.1, 3)
    small = F.interpolate(F.interpolate(crops, size=int(rng.integers(12, size)), mode="area"), size=size,
                          mode="bicubic")
    crops = torch.where(torch.from_numpy(rng.random((n, 1, 1, 1)) < 0.3), small, crops)
    for i in np.flatnonzero(rng.random(n) < 0.4):
        height, width = rng.integers(6, size // 2, 2)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        crops[i, :, top:top + height, left:left + width] = float(rng.random())
    return crops.clamp(0, 1)


def verification_auc(embedding: np.ndarray, person: np.ndarray) -> float:
    """Area under the ROC curve of the cosine over all pairs of pictures, same person against different."""
    from sklearn.metrics import roc_auc_score

    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    pairs = np.triu_indices(len(unit), 1)
    return float(roc_auc_score(person[pairs[0]] == person[pairs[1]], (unit @ unit.T)[pairs]))


@trainable("arcface")
class ArcFaceTask(Task):
    """The mini ArcFace encoder on the training people of a data set.

    Args:
        data: training data set.
        store: where prepared faces are kept.
        seed: of split and draws.
    """

    batch, lr, ema, clip = 64, 0.05, 0.999, 5.0
    jitter = Jitter(degrees=8, scale=0.1, shift=0.04, grey=0.3)

    def __init__(self, data: str, store: Store, seed: int = 0):
        source = open_source(data, store)
        people, drawn = divided(source, seed)
        self.data, self.seed, profile = source.name, seed, PROFILES["mini"]
        self.bank = load_bank(source, people, profile, store)
        self.held_out = load_bank(source, drawn, profile, store)
        self.model = _Classifier(len(self.bank.members))

    def exported(self, model: torch.nn.Module) -> torch.nn.Module:
        """The encoder, without the class centres."""
        return model.encoder

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """SGD with momentum, as ArcFace's authors train."""
        return torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """ArcFace loss; the margin grows from 0 to 0.5 over the first passes, else so few pictures do not converge."""
        rng = numpy_rng(self.seed, "arcface", step)
        index = rng.integers(0, len(self.bank), batch)
        flip, grey = rng.random(batch) < self.jitter.flip, rng.random(batch) < self.jitter.grey
        crops = _aligned(self.bank, index, self.bank.matrices(batch, self.jitter, rng), flip, grey)
        crops = augment(crops, rng) * 2 - 1
        margin = 0.5 * min(1.0, step * batch / (40 * len(self.bank)))
        labels = torch.from_numpy(self.bank.person[index])
        device = next(model.parameters()).device
        return F.cross_entropy(model(crops.to(device), labels.to(device), margin), labels.to(device))

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Verification AUC over all pairs of held-out people."""
        bank, found = self.held_out, []
        plain = np.random.default_rng(seed_of("validation"))
        for index in np.array_split(np.arange(len(bank)), max(1, len(bank) // 128)):
            n = len(index)
            still = bank.matrices(n, Jitter(0, 0, 0), plain)
            crops = _aligned(bank, index, still, np.zeros(n, bool), np.zeros(n, bool))
            found.append(model.encoder((crops * 2 - 1).to(next(model.parameters()).device)).float().cpu().numpy())
        return {"auc": verification_auc(np.concatenate(found), bank.person)}


def _aligned(bank: FaceBank, index: np.ndarray, matrices: np.ndarray, flip: np.ndarray,
             grey: np.ndarray) -> torch.Tensor:
    """ArcFace-aligned crops (n, 3, S, S) in [0, 1], by way of a crop of the profile's size."""
    crops, points = bank.crops(index, matrices, flip, grey)
    frames = np.stack([arcface_frame(p, MINI_SIZE) for p in points])
    return sample_similarity(crops, frames, MINI_SIZE)

"""`invoke train --what landmarks`: RetinaFace on low-resolution images, labelled on their HQ
originals (paper E.4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fsrbench.degrade.named import SCALES, get_degradation
from fsrbench.faces import lr
from fsrbench.faces.align import five_points
from fsrbench.faces.geometry import template
from fsrbench.faces.multibox import Truth, multibox_loss, total
from fsrbench.faces.retinaface import (
    RESNET50,
    RetinaFace,
    detect,
    load_retinaface,
    network_input,
    priors,
)
from fsrbench.faces.warp import with_forehead
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.profiles import PROFILES
from fsrbench.rng import numpy_rng
from fsrbench.training.bank import STILL, Bank, Faces, Jitter
from fsrbench.training.draws import Draws
from fsrbench.training.tasks import Task, origin_of, trainable
from fsrbench.weights.catalogue import locate

# Random scaling: the HQ image is downsampled by a factor drawn log-uniformly up to this one. Share
# of images without a face.
LARGEST, FACELESS = 32.0, 1 / 8


@dataclass(frozen=True)
class Recipe:
    """How a profile's detector is trained: which one, images a step, learning rate, "sgd" (its
    authors' optimiser) or "adam", and share of grey images."""

    detector: lr.Detector
    batch: int
    lr: float
    optimizer: str
    grey: float = 0.0


# Of the paper: E.4, and what it takes over from RetinaFace's authors.
RECIPES = {"mini": Recipe(lr.MINI, 32, 2e-3, "adam", grey=0.35),
           "paper": Recipe(lr.FINE_TUNED, 4, 1e-3, "sgd")}


@dataclass
class Examples:
    """N examples: I_L at HQ size, uint8 (N, S, S, 3); landmarks (N, 68, 2); which have a face, (N,)
    bool; and the HQ images (N, S, S, 3)."""

    images: np.ndarray
    points: np.ndarray
    face: np.ndarray
    originals: np.ndarray


def box_of(points: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of a face with its forehead, as the detection data sets draw it,
    from 68 landmarks."""
    outline = with_forehead(points)
    return np.concatenate([outline.min(0), outline.max(0)])


def shuffled(image: np.ndarray, rng: np.random.Generator, tiles: int = 4) -> np.ndarray:
    """An image of the same parts that shows no face: its tiles in another order."""
    side = image.shape[0] // tiles
    parts = image.reshape(tiles, side, tiles, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return rng.permutation(parts).reshape(tiles, tiles, side, side,
                                          3).swapaxes(1, 2).reshape(image.shape)


def faceless(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image without a face: the shuffled one, or a plain colour with more or less noise."""
    if rng.random() < 0.6:
        return shuffled(image, rng)
    noise = rng.standard_normal(image.shape) * rng.choice([0, 4, 16, 64])
    return np.clip(rng.uniform(0, 255, 3) + noise, 0, 255).astype(np.uint8)


def there_and_back(image: np.ndarray, side: int) -> np.ndarray:
    """An uint8 image downsampled to `side`, rounded, and upsampled again: I_L at HQ size."""
    return brought_back(to_uint8(imresize(to_float(image[None]), side, side))[0], image.shape[0])


def brought_back(small: np.ndarray, size: int) -> np.ndarray:
    """I_L at HQ size of an LR image, as the benchmark upsamples it."""
    return to_uint8(np.clip(imresize(to_float(small[None]), size, size), 0, 1))[0]


@trainable("landmarks")
class LandmarksTask(Task):
    """The detector of landmarks in I_L.

    Its examples are made on the processor, as the registered degradations are, and its loss matches
    boxes there.

    Args:
        init: weights to start from, an exported file or the official checkpoint.
        degradation: name of a degradation instead of random scaling, at a random factor.
    """

    profiles, capturable = ("mini", "paper"), False
    ema = 0.9995

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None, degradation: str | None = None):
        self.profile = PROFILES[bank.origin.profile]
        self.recipe = RECIPES[self.profile.name]
        self.batch, self.lr, self.detector = self.recipe.batch, self.recipe.lr, self.recipe.detector
        self.jitter = Jitter(degrees=2, scale=0.03, shift=0.015, grey=self.recipe.grey)
        # The authors do not clip gradients.
        self.clip = float("inf") if self.recipe.optimizer == "sgd" else 10.0
        self.degradation = get_degradation(degradation) if degradation else None
        super().__init__(bank, device, seed, init)
        self.model.to(memory_format=torch.channels_last)
        official = locate("retinaface-resnet50")
        self.teacher = (load_retinaface(official, RESNET50) if official
                        and self.detector.config.points == 5 else None)
        self.anchors = priors(self.detector.side, self.detector.side)

    def network(self) -> torch.nn.Module:
        """The detector of the profile."""
        return RetinaFace(self.detector.config)

    def start_from(self, path: Path) -> None:
        """Take exported or official weights."""
        self.origin = origin_of(path)
        self.model = load_retinaface(path,
                                     self.detector.config).requires_grad_(True).to(self.device)

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """SGD with the authors' settings, or Adam."""
        if self.recipe.optimizer == "sgd":
            return torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4,
                                   fused=True)
        return super().optimizer(lr)

    # --- examples ---------------------------------------------------------------------------------

    def examples(self, draws: Draws, faces: Faces, n: int) -> dict:
        """Jittered examples, degraded at random, some of them without a face."""
        rng = numpy_rng("landmarks", *draws.words)
        images, points = faces.crops(draws, faces.draw(draws, n), self.jitter,
                                     draws.coins(n, self.jitter.flip),
                                     draws.coins(n, self.jitter.grey))
        images, points = images.cpu(), points.double().cpu().numpy()
        face = rng.random(n) >= FACELESS
        originals = np.stack([image if kept else faceless(image, rng)
                              for image, kept in zip(to_uint8(images.numpy()), face)])
        degraded = [self.degraded(image, rng, "/".join(map(str, (*draws.words, i))))
                    for i, image in enumerate(originals)]
        return {"examples": Examples(np.stack(degraded), points, face, originals)}

    def degraded(self, image: np.ndarray, rng: np.random.Generator, name: str) -> np.ndarray:
        """I_L at HQ size by a random factor."""
        size = image.shape[0]
        if self.degradation is None:
            return there_and_back(image,
                                  max(2, round(size / np.exp(rng.uniform(0, np.log(LARGEST))))))
        scale = int(rng.choice([s for s in SCALES if size // s >= 2]))
        return brought_back(self.degradation.apply(image, scale, name), size)

    def truths(self, examples: Examples) -> list[Truth]:
        """Labels, as shares of the image: those of the official RetinaFace on the HQ image where
        it serves and finds the face, else dlib's landmarks."""
        size = self.profile.size
        labels = [(box_of(p), p if self.detector.config.points == 68 else five_points(p))
                  for p in examples.points]
        if self.teacher is not None:
            side = self.detector.side
            large = np.stack([lr.enlarged(image, side) for image in examples.originals])
            for i, found in enumerate(detect(self.teacher, large, 0.5)):
                if len(found.boxes):
                    labels[i] = (found.boxes[0] * size / side - 0.5, found.points[0] * size / side
                                 - 0.5)
        return [self._truth((box + 0.5) / size, (points + 0.5) / size, kept)
                for (box, points), kept in zip(labels, examples.face)]

    @staticmethod
    def _truth(box: np.ndarray, points: np.ndarray, kept: bool) -> Truth:
        count = int(kept)
        return Truth(torch.from_numpy(box).float()[None][:count],
                     torch.from_numpy(points).float()[None][:count],
                     torch.ones(count, dtype=torch.bool))

    # --- the loop's -------------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, example: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """The multi-task loss."""
        examples = example["examples"]
        large = np.stack([lr.enlarged(image, self.detector.side) for image in examples.images])
        outputs = model(network_input(large).to(self.device))
        loss = total(multibox_loss(tuple(out.cpu() for out in outputs), self.anchors,
                                   self.truths(examples)))
        return loss, loss

    def still(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Held-out images uint8 (count, S, S, 3) as the benchmark sees them, and their landmarks
        (count, 68, 2)."""
        held = self.bank.held
        count = min(count, len(held))
        index = torch.from_numpy(numpy_rng("landmarks", "held out")
                                 .permutation(len(held))[:count]).to(self.device)
        off = torch.zeros(count, dtype=torch.bool, device=self.device)
        faces, points = held.crops(Draws(self.device), index, STILL, off, off)
        return to_uint8(faces.cpu().numpy()), points.double().cpu().numpy()

    def validate(self, model: torch.nn.Module, count: int = 256) -> dict[str, float]:
        """On held-out images at x4, x8, x16: mean distance in pixels from the truth's landmarks,
        and the share in which a face is found; `base` is the template's distance, `false` the share
        among shuffled images at x8."""
        images, truth = self.still(count)

        def errors(points):
            return float(np.linalg.norm(points - truth, axis=-1).mean())
        figures = {"base": errors(template(self.profile.size, self.profile.frame))}
        for scale in (4, 8, 16):
            small = np.stack([there_and_back(p, self.profile.size // scale) for p in images])
            scores, points = lr.look(self.detector, model, small, self.profile.frame)
            figures |= {f"x{scale}": errors(points), f"sure_x{scale}": float((scores > lr.SURE)
                                                                             .mean())}
        rng = numpy_rng("landmarks", "faceless")
        faceless = np.stack([there_and_back(shuffled(p, rng), self.profile.size // 8)
                             for p in images])
        scores, _ = lr.look(self.detector, model, faceless, self.profile.frame)
        return {**figures, "false": float((scores > lr.SURE).mean())}

    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """16 held-out images at x8, the found landmarks in white, the truth's in black."""
        images, truth = self.still(16)
        small = np.stack([there_and_back(p, self.profile.size // 8) for p in images])
        found = lr.look(self.detector, model, small, self.profile.frame)[1]
        large = [lr.enlarged(p, 256).copy() for p in small]
        for image, *both in zip(large, truth, found):
            for points, grey in zip(both, (0, 255)):
                x, y = np.clip(np.round((points + 0.5) * 256 / self.profile.size).astype(int), 1,
                               254).T
                image[y, x] = image[y, x - 1] = image[y - 1, x] = grey
        return np.concatenate([np.concatenate(large[i:i + 8], 1) for i in range(0, len(large), 8)])

    def card(self) -> dict:
        """Configuration and deviations."""
        mini = ["a narrow MobileNet with 68 landmarks for each anchor; Adam; labels are dlib's",
                "64-pixel faces of LFW, upsampled to 96; 35 % grey"]
        return {"config": asdict(self.detector.config), "degradation": self.degradation.id
                if self.degradation else
                f"random scaling by 1 to {LARGEST:g}", "faceless": FACELESS, "deviations": [
            "crops about one aligned face instead of WIDER's scenes; an image in 8 shows none "
            "(shuffled tiles, noise)",
            "turned, scaled and shifted a little where the authors cut at random; no colour "
            "distortion",
            *mini * (self.detector is lr.MINI)]}

"""IDFSR as methods of the registry: pre-trained, fine-tuned, without reference, and the ablation
cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.core import Batch, FaceImage, Method, Part, Person, Profile
from fsrbench.engine.splits import draw_reference
from fsrbench.imaging import to_float
from fsrbench.methods.common.diffusion import ddim_sample, linear_schedule, respace
from fsrbench.methods.common.identity import NETWORKS, IdentityEncoder, chosen
from fsrbench.methods.idfsr.conditions import masked_and_warped
from fsrbench.methods.idfsr.configs import CASE_TITLES, CASES, config_of
from fsrbench.methods.idfsr.fitting import FITS, fit_identities, people_at_once
from fsrbench.methods.idfsr.network import IdfsrConfig, IdfsrNet
from fsrbench.registry import method
from fsrbench.weights.catalogue import Bundled, WeightFile, register
from fsrbench.weights.graphs import graphed
from fsrbench.weights.networks import device

LICENCE = ("this project's weights, trained on LFW (research use); no official weights of the "
           "paper exist")

register(WeightFile("diffae-ffhq256", "ffhq256_autoenc_last.ckpt", "", "MIT (phizaz/diffae)",
                    "initialisation of IDFSR in the paper profile (`invoke train --what idfsr "
                    "--init FILE`)"))
for _profile, _source in (("mini", (Bundled(),)), ("paper", ())):
    for _case in (None, *CASES):
        _stem = f"idfsr-{_profile}" + ("" if _case is None else f"-case{_case}")
        _words, _of = ("", "IDFSR") if _case is None else (f" --case {_case}",
                                                           f"IDFSR ablation case {_case}")
        register(WeightFile(_stem, f"{_stem}.safetensors", "", LICENCE,
                            f"{_of} in the {_profile} profile "
                            f"(`invoke train --what idfsr --profile {_profile}{_words}`)", _source))


@lru_cache(maxsize=16)
def idfsr_parts(weights: str, config: IdfsrConfig, profile: str) -> dict[str, Part]:
    """Noise predictor with style encoder, the style encoder in it, and E_id, as the configuration
    has them."""
    unet, size = config.unet, config.unet.image_size

    def inputs() -> tuple:
        z_s, z_id = (torch.zeros(1, n) if n else None for n in (unet.style_channels,
                                                                unet.id_channels))
        return torch.zeros(1, unet.in_channels, size,
                           size), torch.zeros(1, dtype=torch.long), z_s, z_id
    parts = {"network": Part(weights, partial(IdfsrNet, config), inputs)}
    if unet.style_channels:
        parts["encoder"] = Part(weights, lambda: IdfsrNet(config).encoder,
                                lambda: (torch.zeros(1, 3, size, size),), within=True)
    if unet.id_channels:
        build, side = NETWORKS[chosen(profile)]
        parts["E_id"] = Part(chosen(profile), build, lambda: (torch.zeros(1, 3, side, side),),
                             counted=False)
    return parts


def stack(faces: list[FaceImage]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images (N, 3, S, S) in [0, 1], and their landmarks."""
    return to_float(np.stack([p.image for p in faces])), [p.landmarks.points for p in faces]


class Idfsr(Method):
    """What all variants share: conditions once per image, then DDIM steps."""

    needs = frozenset({"references", "landmarks"})
    licence = LICENCE
    origin = "IDFSR (anonymous submission); this implementation"
    case: int | None = None

    def __init__(self, profile: Profile):
        self.weights = "mini" if profile.name == "mini" else "trained"
        self.config = config_of(profile.name, self.case)
        suffix = "" if self.case is None else f"-case{self.case}"
        self.parts = idfsr_parts(f"idfsr-{profile.name}{suffix}", self.config, profile.name)
        super().__init__(profile)
        self.nfe = self.config.steps
        if profile.name == "mini":
            self.remark = f"{self.nfe} DDIM steps instead of the paper's 20: chosen on LFW"
        self.schedule = respace(linear_schedule(self.config.T), self.config.timesteps)

    def settings(self) -> str:
        """The configuration."""
        return repr(self.config)

    def part(self, role: str) -> torch.nn.Module:
        """As in `Method`; the style encoder is the one inside the network."""
        if role == "encoder" and role not in self.stand_ins:
            encoder = super().part("network").encoder
            return graphed(encoder) if device() == "cuda" else encoder
        return super().part(role)

    def identity(self) -> IdentityEncoder:
        """E_id with its alignment."""
        return IdentityEncoder(self.part("E_id"), NETWORKS[chosen(self.profile.name)][1])

    def z_id(self, batch: Batch) -> torch.Tensor:
        """z_id (N, 512) as the network takes it: of the references (PT)."""
        return self.identity()(*self._tensors(batch.references)) * self.config.z_id_scale

    @staticmethod
    def _tensors(faces: list[FaceImage]) -> tuple[torch.Tensor, list[np.ndarray]]:
        images, points = stack(faces)
        return torch.from_numpy(images), points

    def reference(self, batch: Batch) -> tuple[np.ndarray, list[np.ndarray]]:
        """What is warped into I_W: images (N, 3, S, S) and landmarks."""
        return stack(batch.references)

    def prepare(self, batch: Batch) -> None:
        """I_M and I_W."""
        batch.prepared = self.conditions(batch)

    def conditions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """I_M and I_W (N, 3, S, S) in [-1, 1]."""
        return masked_and_warped(batch.upsampled, [f.points for f in batch.landmarks],
                                 *self.reference(batch), self.config.region)[:2]

    @torch.inference_mode()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]."""
        network, config = self.part("network"), self.config
        I_M, I_W = batch.prepared or self.conditions(batch)
        concat = {"masked": I_M, "lr": torch.from_numpy(batch.upsampled) * 2 - 1,
                  "none": None}[config.condition]
        z_s = self.part("encoder")(I_W.to(device())) if config.unet.style_channels else None
        z_id = self.z_id(batch).to(device()) if config.unet.id_channels else None
        denoise = network if concat is None else with_condition(concat.to(device()), network)
        x = ddim_sample(lambda x, t: denoise(x, t, z_s, z_id), batch.noise("x_T").to(device()),
                        self.schedule, config.parameterisation)
        return ((x + 1) / 2).clamp(0, 1).cpu()


def with_condition(I_M: torch.Tensor, network: IdfsrNet):
    """The network on [x_t, I_M]; the six channels stand in one buffer, of which only x_t is written
    at each step."""
    both = torch.cat([I_M, I_M], 1).contiguous(memory_format=torch.channels_last)

    def denoise(x, t, z_s, z_id):
        both[:, :3] = x
        return network(both, t, z_s, z_id)
    return denoise


@method
class IdfsrPt(Idfsr):
    """z_id of the reference."""

    name, title, paper = "idfsr.pt", "IDFSR (PT)", "idfsr-pt"


@method
class IdfsrFt(Idfsr):
    """z_id fitted to the person's fine-tune half; everything else frozen (paper 3.3)."""

    name, title, paper = "idfsr.ft", "IDFSR (FT)", "idfsr-ft"
    needs = Idfsr.needs | {"fit"}

    def fit(self, person: Person, seed: int) -> Mapping[str, torch.Tensor]:
        """The fitted z_id (512,)."""
        return self.fit_many([person], seed)[0]

    def together(self) -> int:
        """One on a processor, which a single fit keeps busy; on a GPU as many as its memory takes,
        as the small batch of one leaves it waiting."""
        if device() == "cpu":
            return 1
        return people_at_once(self.profile, torch.cuda.mem_get_info()[0])

    def fit_many(self, people: Sequence[Person], seed: int) -> list[Mapping[str, torch.Tensor]]:
        """The fitted z_id (512,) of each."""
        starts = torch.stack([self._start(person, seed) for person in people])
        found = fit_identities(self.part("network"), self.config, self.profile, people, starts,
                               seed)
        return [{"z_id": z_id.clone()} for z_id in found]

    def _start(self, person: Person, seed: int) -> torch.Tensor:
        """z_id (512,) that a fit starts from."""
        start = list(person.album)
        if not FITS[self.profile.name].from_mean:
            first = draw_reference([p.id for p in person.album], f"fit/{person.name}", seed)
            start = [p for p in person.album if p.id == first]
        return F.normalize(self.identity()(*self._tensors(start)).mean(0),
                           dim=0) * self.config.z_id_scale

    def z_id(self, batch: Batch) -> torch.Tensor:
        """The fitted embeddings."""
        return torch.stack([batch.fits[person]["z_id"] for person in batch.people])


@method
class IdfsrNoRef(Idfsr):
    """The low-resolution image is its own reference: style and identity of I_L (appendix C)."""

    name, title, paper = "idfsr.noref", "IDFSR (w/o reference)", "idfsr-noref"
    needs = frozenset({"landmarks"})

    def z_id(self, batch: Batch) -> torch.Tensor:
        """z_id of I_L."""
        points = [f.points for f in batch.landmarks]
        return self.identity()(torch.from_numpy(batch.upsampled), points) * self.config.z_id_scale

    def reference(self, batch: Batch) -> tuple[np.ndarray, list[np.ndarray]]:
        """I_L itself, which the warp leaves in place."""
        return batch.upsampled, [f.points for f in batch.landmarks]


for _case in CASES:
    method(type(f"IdfsrCase{_case}", (IdfsrPt,), {
        "name": f"idfsr.case{_case}", "title": CASE_TITLES[_case], "paper": None, "case": _case,
        "__doc__": f"Ablation case {_case} (paper 5.4), 0 the default in the ablation's size; "
                   f"pre-trained only."}))

"""Parity of RetinaFace with the official networks."""

from __future__ import annotations

import torch

from fsrbench.faces.retinaface import (
    BGR_MEAN,
    MOBILE025,
    RESNET50,
    RetinaConfig,
    RetinaFace,
    decode_boxes,
    decode_points,
    priors,
)
from fsrbench.proof.parity import Recipe, check, error, filled, layout


def _official(config: dict) -> RetinaFace:
    return RetinaFace(RESNET50 if config["name"] == "Resnet50" else MOBILE025)


def _parity(fixture: dict, config: RetinaConfig) -> float:
    """Raw outputs, anchors, and boxes and landmarks decoded, under the deterministic fill."""
    recipe = Recipe(fixture)
    shape = recipe.shapes[0]
    image = recipe.uniform(shape)
    # The recording divides by 64, which the networks in use do not.
    loc, conf, landm = filled(RetinaFace(config))((image - torch.tensor(BGR_MEAN)[:, None, None])
                                                  / 64)
    anchors = priors(*shape[2:])
    ours = {"loc": loc, "conf": conf.softmax(-1), "landm": landm, "priors": anchors,
            "boxes": decode_boxes(loc.clamp(-3, 3), anchors)[0],
            "landmarks": decode_points(landm, anchors)[0].flatten(1)}
    return max(error(value, fixture[name]) for name, value in ours.items())


for _name, _config in (("retinaface-resnet50", RESNET50), ("retinaface-mobile025", MOBILE025)):
    layout(_name)(_official)
    check(_name, 1e-4)(lambda fixture, config=_config: _parity(fixture, config))

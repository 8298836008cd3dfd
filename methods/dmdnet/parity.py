"""Parity of DMDNet with the official network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn

from fsrbench.methods.common.spectral_fill import filled_spectral
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.network import Dictionary, DmdConfig, DmdNet, Keyed, scores
from fsrbench.proof.parity import Recipe, bilinear, channel_error, check, error, input_error, layout


@layout("dmdnet")
def _layout(official: dict) -> nn.Module:
    return DmdNet(DmdConfig(official["ngf"], official["banks_num"]))


def _statistics_error(value: torch.Tensor, fixture: dict, name: str) -> float:
    """Relative error of the first channels' means and, unlike elsewhere, unbiased deviations."""
    channels = value.double().transpose(0, 1).flatten(1)[:len(fixture[f"{name}_mean"])]
    return max(error(channels.mean(1), fixture[f"{name}_mean"], True),
               error(channels.std(1), fixture[f"{name}_std"], True))


def _dictionary_error(dictionary: Dictionary, fixture: dict) -> float:
    """Of the personal dictionary."""
    worst = 0.0
    for kind, tensors in zip(("Key", "Value"), dictionary):
        for (part, scale), value in tensors.items():
            name = f"dict_{part}{scale}{kind}"
            same = list(value.shape) == fixture[f"{name}_shape"].tolist()
            worst = max(worst, _statistics_error(value, fixture, name) if same else float("inf"))
    return worst


def _memory_error(network: DmdNet, queries: Keyed, parts: Keyed, dictionaries: list[Dictionary],
                  fixture: dict) -> float:
    """Of what is read from the dictionaries. Exponentials of products near 300 lose a digit in the
    recording, so that twice the tolerance is allowed."""
    found = []
    for (part, scale), query in queries.items():
        low = f"{part.lower()}_{scale}"
        found.append(error(scores(query, getattr(network, f"{low}_mem_key"))[0],
                           fixture[f"score_{low}"]))
    for kind, known in (("gen", None), ("spe", dictionaries)):
        for (part, scale), value in network.memory(queries, parts, known).items():
            name = f"{kind}_{part}{scale}Norm"
            means = value.double().mean((0, 2, 3))[:len(fixture[f"{name}_mean"])]
            found += [error(means, fixture[f"{name}_mean"]),
                      error(value[0, :4, :4, :4], fixture[f"{name}_corner"], True)]
    return max(found) / 2


@check("dmdnet", 2e-5)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    images = [bilinear(recipe.uniform(recipe.shapes[0]), 512)
              for _ in range(1 + len(fixture["ref_landmarks"]))]
    boxes = part_boxes(fixture["lq_landmarks"], 512)
    reference_boxes = np.stack([part_boxes(points, 512) for points in fixture["ref_landmarks"]])
    worst = max(input_error(images[0], fixture), error(boxes[None], fixture["lq_loc"]),
                error(reference_boxes, fixture["ref_loc"]))
    boxes, network = torch.from_numpy(boxes)[None], filled_spectral(DmdNet(), ("_mem_",))
    dictionaries = network.memorise(torch.cat(images[1:]), torch.from_numpy(reference_boxes))
    worst = max(worst, _dictionary_error(dictionaries[0], fixture))
    features = network.E_lq(images[0])
    parts = network.parts(features, boxes)
    queries = network.queries(parts)
    worst = max(worst, *(_statistics_error(value, fixture, f"fs_f{scale}")
                         for scale, value in features.items()),
                _memory_error(network, queries, parts, dictionaries, fixture))
    outputs = {"generic": network(images[0], boxes), "specific": network(images[0], boxes,
                                                                         dictionaries)}
    for name, out in outputs.items():
        stride = int(fixture[f"{name}_stride"][0])
        worst = max(worst, channel_error(out, fixture, name),
                    error(out[..., ::stride, ::stride], fixture[f"{name}_sample"]))
    top, left = fixture["mouth_crop_origin_yx"]
    return max(worst, error(outputs["specific"][..., top:top + 48, left:left + 48],
                            fixture["specific_mouth_crop"]))

"""What a RetinaFace is trained by: faces matched to anchors, and the multi-task loss (Deng et al.
2020, eq. 1, without mesh).

Source: biubug6/Pytorch_Retinaface (MIT; rules and constants). Positions are shares of the image's
width and height.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fsrbench.faces.retinaface import VARIANCES

# Least overlap of an anchor with its face; least overlap of a face with its best anchor; background
# anchors kept for each positive one; weight of the box loss.
OVERLAP, FLOOR, NEGATIVES, BOX_WEIGHT = 0.35, 0.2, 7, 2.0


@dataclass(frozen=True)
class Truth:
    """The faces of one image: boxes (G, 4) as left, top, right, bottom; points (G, P, 2); known
    (G,) bool, false where the landmarks of a face are not labelled."""

    boxes: torch.Tensor
    points: torch.Tensor
    known: torch.Tensor


def corners(anchors: torch.Tensor) -> torch.Tensor:
    """Left, top, right, bottom (A, 4) of anchors given by centre and size."""
    return torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    from torchvision.ops import box_iou

    return box_iou(a, b)


def match(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Which face each anchor stands for, (A,); -1 for background.

    An anchor belongs to the face that it overlaps most, if by OVERLAP at least; and each face has
    its best anchor, unless even that overlaps it by less than FLOOR. (The official code also moves
    the best anchor of a face so dropped to it, which matters only where that anchor belongs to
    another face.)
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1)
    shared = overlaps(boxes, corners(anchors))
    best, face = shared.max(0)
    face = torch.where(best < OVERLAP, -1, face)
    of_face, anchor = shared.max(1)
    for i in range(len(boxes)):
        if of_face[i] >= FLOOR:
            face[anchor[i]] = i
    return face


def encode_boxes(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Offsets (..., 4) of boxes (..., 4) from their anchors; the inverse of `decode_boxes`."""
    centre = ((boxes[..., :2] + boxes[..., 2:]) / 2 - anchors[..., :2]) / (VARIANCES[0]
                                                                           * anchors[..., 2:])
    size = torch.log((boxes[..., 2:] - boxes[..., :2]) / anchors[..., 2:]) / VARIANCES[1]
    return torch.cat([centre, size], -1)


def encode_points(points: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Offsets (..., 2 P) of landmarks (..., P, 2) from their anchors; the inverse of
    `decode_points`."""
    return ((points - anchors[..., None, :2]) / (VARIANCES[0] * anchors[..., None, 2:])).flatten(-2)


def hard_negatives(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Background anchors (N, A) bool that are most taken for faces: NEGATIVES for each positive one
    of their image.

    An image without a face, which the official training does not have, counts as having the mean
    number of those that have.
    """
    loss = torch.logsumexp(logits, -1) - logits[..., 0]
    rank = loss.masked_fill(positive, -torch.inf).argsort(1, descending=True).argsort(1)
    count = positive.sum(1)
    usual = int(count.sum() / max(1, int((count > 0).sum())))
    wanted = (NEGATIVES * torch.where(count > 0, count, max(1, usual))).clamp(max=positive.shape[1]
                                                                              - 1)
    return (rank < wanted[:, None]) & ~positive


def multibox_loss(outputs: tuple[torch.Tensor, ...], anchors: torch.Tensor,
                  truths: list[Truth]) -> dict[str, torch.Tensor]:
    """The three losses of a batch: "box" and "points" (smooth L1, summed) and "face"
    (cross-entropy), each divided by the number of positive anchors; landmarks by that of anchors
    whose face's landmarks are known.

    Args:
        outputs: of the network: box offsets (N, A, 4), logits (N, A, 2), landmark offsets (N, A, 2
            P).
    """
    loc, logits, landm = (out.float() for out in outputs)
    face = torch.stack([match(truth.boxes, anchors) for truth in truths])
    positive = face >= 0
    n, a = positive.nonzero(as_tuple=True)
    boxes, points, known = (torch.cat([getattr(t, name)[f[f >= 0]] for t, f in zip(truths, face)])
                            for name in ("boxes", "points", "known"))
    kept = positive | hard_negatives(logits.detach(), positive)
    at = anchors[a]
    return {
        "box": F.smooth_l1_loss(loc[n, a], encode_boxes(boxes, at), reduction="sum")
        / max(1, len(n)),
        "face": F.cross_entropy(logits[kept], positive[kept].long(), reduction="sum")
        / max(1, len(n)),
        "points": F.smooth_l1_loss(landm[n, a][known], encode_points(points, at)[known],
                                   reduction="sum")
        / max(1, int(known.sum()))}


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """2 L_box + L_cls + L_lm."""
    return BOX_WEIGHT * losses["box"] + losses["face"] + losses["points"]

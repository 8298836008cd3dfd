"""Judges of identity whose networks are in torch, where their files are."""

from __future__ import annotations

from functools import partial

import fsrbench.methods.common.identity  # noqa: F401  the catalogue's entry of IR-SE-50
from fsrbench.methods.common.ir50 import embedded
from fsrbench.metrics.joining import join
from fsrbench.metrics.recognisers import ARCFACE, Recogniser
from fsrbench.weights.catalogue import Url, WeightFile, register

# Links of the README of mk-minchul/AdaFace; no digest is published.
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
for _data, _id in (("ms1mv2", "1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI"),
                   ("webface4m", "1BmDRrhPsHSbXcWZoYFPJg2KJn1sd3QpN")):
    register(WeightFile(f"adaface-ir50-{_data}", f"adaface_ir50_{_data}.ckpt", "",
                        "MIT (mk-minchul/AdaFace)", "one more judge of identity",
                        (Url(_DRIVE + _id),)))
for _judge in (
        # TreB1eN's faces_emore is MS1MV2.
        Recogniser("irse50", "ArcFace IR-SE-50", "arcface-irse50", ("MS-Celeb-1M",), ARCFACE,
                   "irse50-arcface112@1"),
        Recogniser("adaface", "AdaFace", "adaface-ir50-ms1mv2", ("MS-Celeb-1M",), ARCFACE,
                   "adaface-arcface112@1"),
        Recogniser("adaface-webface", "AdaFace (WebFace4M)", "adaface-ir50-webface4m",
                   ("WebFace4M",), ARCFACE, "adaface-webface-arcface112@1")):
    join(_judge, partial(embedded, _judge.weights))

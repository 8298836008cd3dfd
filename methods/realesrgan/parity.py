"""Parity of Real-ESRGAN with ncnn."""

from fsrbench.methods.common.general_parity import register_check
from fsrbench.methods.realesrgan.method import RealEsrgan

register_check(RealEsrgan)

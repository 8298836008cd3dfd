"""Parity of both SRMD networks with ncnn."""

from fsrbench.methods.common.general_parity import register_check
from fsrbench.methods.srmd.method import SrmdNoise, SrmdOfficial

register_check(SrmdOfficial)
register_check(SrmdNoise)

"""Parity of RealSR with ncnn."""

from fsrbench.methods.common.general_parity import register_check
from fsrbench.methods.realsr.method import RealSr

register_check(RealSr)

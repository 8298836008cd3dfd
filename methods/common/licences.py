"""Licences that several methods share."""

from __future__ import annotations

LFW_LICENCE = "this project's; trained on LFW (research use)"

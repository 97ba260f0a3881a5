"""Encoders: text ─▶ sparse vectors. `load_encoder` is the way in."""

from bridge.encode.base import Encoder
from bridge.encode.load import load_encoder

__all__ = ["Encoder", "load_encoder"]

"""Hidden states ─▶ pooled weights over the vocabulary: the half of a sparse model's work that is not its transformer.

The projection is done in slices of the vocabulary, so that B·L·V logits never exist; the maximum over a text's tokens
is taken before the activation, which is monotone, and before the bias is added, which is the same for every token.

Where the processor multiplies bfloat16 much faster than float32 (AMX), the projection is first *screened*: every
logit is computed in bfloat16, and by Cauchy-Schwarz on the rounding errors an upper bound of each text's maximum
follows. Where that bound is not above zero, the weight is zero, exactly. A trained sparse model leaves a few hundred
entries of 30,000; those alone are computed, in float32, from the unrounded numbers: so the result is that of the plain
float32 projection.
"""

from __future__ import annotations

import torch

from bridge.models import Activation, Pooling

_SLICE = 2048
"""Vocabulary entries a slice in float32: long enough for the matrix product to be fast, short enough for the cache."""

_SCREEN_SLICE = 256
"""Vocabulary entries a slice in bfloat16: the product is so fast that its result must not leave the core's cache."""

_SCREEN_ROWS = 128
"""What the rows of a screened product are filled up to a multiple of: for each shape of a product its kernels are
generated anew and kept, about a megabyte of them, and batches come in hundreds of shapes."""

_DENSE = 8
"""A text with more than one in so many entries above the bound is computed in full: screening it saves nothing."""

_ROUNDING = 2.0**-8
"""Unit roundoff of bfloat16."""

_SLACK = 1.01
"""Covers the roundings of the bound itself, and those of the float32 sums inside of the product."""


class Projection:
    """The linear map onto the vocabulary, pooled over each text's tokens, activated.

    Args:
        weight: [V, H], in the precision that the model runs in.
        bias: [V] or None.
        pooling, activation: see `bridge.models.ModelCard`.
        screened: screen in bfloat16 first; by default where that is fast and the weights are float32 on a CPU.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        pooling: Pooling,
        activation: Activation,
        screened: bool | None = None,
    ) -> None:
        self.weight = weight.detach()
        size = int(weight.shape[0])
        self.bias = torch.zeros(size, device=weight.device) if bias is None else bias.detach().float()
        self.summed = pooling == "sum"
        self.activation = activation
        if screened is None:
            screened = weight.device.type == "cpu" and weight.dtype == torch.float32 and has_fast_bfloat16()
        self._screen = _Screen(self.weight) if screened else None

    def pool(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Weights float32[B, V], zero or more.

        Args:
            hidden: [B, L, H].
            mask: int64[B, L], 1 where there is a token (the first place always has one); None where all have.
        """
        if self._screen is not None:
            return self._pool_screened(self._screen, hidden, mask)
        if self.summed:
            return self._sum(hidden, mask, self.weight, self.bias)
        return activate(self._best(_unpadded(hidden, mask), self.weight) + self.bias, self.activation)

    def _best(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """float32[B, V]: the maximum over the tokens, without the bias."""
        count, longest, size = hidden.shape
        flat = hidden.reshape(-1, size)
        best = torch.empty(count, weight.shape[0], dtype=torch.float32, device=hidden.device)
        for start in range(0, weight.shape[0], _SLICE):
            part = slice(start, start + _SLICE)
            best[:, part] = torch.nn.functional.linear(flat, weight[part]).view(count, longest, -1).amax(1)
        return best

    def _sum(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """float32[B, V]: the sum over the tokens of activated logits, as the first SPLADE has it."""
        count, longest, size = hidden.shape
        flat = hidden.reshape(-1, size)
        total = torch.empty(count, weight.shape[0], dtype=torch.float32, device=hidden.device)
        for start in range(0, weight.shape[0], _SLICE):
            part = slice(start, start + _SLICE)
            logits = torch.nn.functional.linear(flat, weight[part]).view(count, longest, -1).float() + bias[part]
            if mask is not None:
                logits.masked_fill_((mask == 0).unsqueeze(-1), 0)
            total[:, part] = activate(logits, self.activation).sum(1)
        return total

    def _pool_screened(self, screen: _Screen, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        size = int(self.weight.shape[0])
        lengths = [hidden.shape[1]] * hidden.shape[0] if mask is None else mask.sum(1).tolist()
        above = screen.bound(_unpadded(hidden, mask)).add_(self.bias) >= 0
        pooled = torch.zeros(hidden.shape[0], size)
        dense = 0
        for row, length in enumerate(lengths):
            states = hidden[row : row + 1, :length]
            entries = above[row].nonzero().squeeze(1)
            if entries.numel() * _DENSE > size:
                dense += 1
                entries = torch.arange(size)
            weight = self.weight if entries.numel() == size else self.weight[entries]
            bias = self.bias if entries.numel() == size else self.bias[entries]
            if self.summed:
                pooled[row, entries] = self._sum(states, None, weight, bias)[0]
            else:
                pooled[row, entries] = activate(self._best(states, weight) + bias, self.activation)[0]
        if 2 * dense > len(lengths):
            # This model is not sparse: its next batches go without.
            self._screen = None
        return pooled


class _Screen:
    """Upper bounds of the maxima, from a bfloat16 copy of the weights."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight.bfloat16()
        self.norm = torch.cat([part.norm(dim=1) for part in weight.split(_SLICE)])
        pairs = zip(weight.split(_SLICE), self.weight.split(_SLICE), strict=True)
        self.lost = torch.cat([(part - rounded.float()).norm(dim=1) for part, rounded in pairs])

    def bound(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32[B, V], no less than the maximum over tokens of ``hidden @ weight.T``, from float32 [B, L, H].

        With h' and w' the rounded numbers, ``h·w = h'·w' + (h - h')·w + h'·(w - w')``, and the last two are no more
        than the products of the vectors' lengths.
        """
        count, longest, size = hidden.shape
        rounded = hidden.bfloat16()
        back = rounded.float()
        length = back.norm(dim=2).amax(1, keepdim=True) * _SLACK
        lost = (hidden - back).norm(dim=2).amax(1, keepdim=True) * _SLACK
        best = self._best(_filled(rounded.view(-1, size)), count, longest).float()
        bound = best + best.abs() * (_ROUNDING * _SLACK)
        return bound.addcmul_(lost, self.norm).addcmul_(length, self.lost + self.norm * 1e-4)

    def _best(self, rounded: torch.Tensor, count: int, longest: int) -> torch.Tensor:
        total, rows = int(self.weight.shape[0]), int(rounded.shape[0])
        best = torch.empty(count, total, dtype=torch.bfloat16)
        # One buffer for all slices: fresh memory would cost more than the product.
        buffer = torch.empty(rows * _SCREEN_SLICE, dtype=torch.bfloat16)
        for start in range(0, total, _SCREEN_SLICE):
            part = self.weight[start : start + _SCREEN_SLICE]
            width = int(part.shape[0])
            logits = buffer[: rows * width].view(rows, width)
            torch.mm(rounded, part.t(), out=logits)
            best[:, start : start + width] = logits[: count * longest].view(count, longest, width).amax(1)
        return best


def _filled(rows: torch.Tensor) -> torch.Tensor:
    """[N, H], with rows of zeros at its end up to one of few sizes."""
    count = int(rows.shape[0])
    size = 1 << (count - 1).bit_length() if count < _SCREEN_ROWS else -(-count // _SCREEN_ROWS) * _SCREEN_ROWS
    return rows if size == count else torch.nn.functional.pad(rows, (0, 0, 0, size - count))


def _unpadded(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`hidden` with each text's first state where it has no token: a repeat never changes a maximum."""
    if mask is None:
        return hidden
    return torch.where(mask.unsqueeze(-1) == 0, hidden[:, :1], hidden)


def activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """`logits` float32, changed in place."""
    logits.relu_()
    if activation != "relu":
        logits.log1p_()
    if activation == "log1p_log1p_relu":
        logits.log1p_()
    return logits


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices several times as fast as float32 ones."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe is not None and torch.backends.mkldnn.is_available() and probe())

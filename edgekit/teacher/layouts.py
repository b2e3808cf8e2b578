"""How a module's output holds a map, and the one way in and out: every map is worked on as [N, C, h, w]."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgekit.errors import BadInputError

__all__ = ["NCHW", "Layout"]


@dataclass(frozen=True)
class Layout:
    """The arrangement of an output.

    Attributes:
        kind: "nchw" for [N, C, h, w]; "nhwc" for [N, h, w, C]; "tokens" for [N, prefix + h * w, C], row by row.
        height: Rows of the map; needed for "tokens" only, where the output does not tell.
        width: Columns of the map, as `height`.
        prefix_tokens: Tokens before the first cell, such as a class token.
    """

    kind: str = "nchw"
    height: int = 0
    width: int = 0
    prefix_tokens: int = 0

    def to_map(self, output: torch.Tensor) -> torch.Tensor:
        """The output as [N, C, h, w].

        Raises:
            BadInputError: The output does not have this layout.
        """
        self._check(output)
        if self.kind == "nchw":
            return output
        if self.kind == "nhwc":
            return output.permute(0, 3, 1, 2)
        cells = output[:, self.prefix_tokens :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], self.height, self.width)

    def from_map(self, activation: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the module would have put out with `activation` [N, C, h, w] in its map; the rest is `output`'s."""
        if self.kind == "nchw":
            return activation
        if self.kind == "nhwc":
            return activation.permute(0, 2, 3, 1)
        cells = activation.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : self.prefix_tokens], cells], dim=1) if self.prefix_tokens else cells

    def _check(self, output: torch.Tensor) -> None:
        tokens = self.prefix_tokens + self.height * self.width
        fits = output.dim() == 3 and output.shape[1] == tokens if self.kind == "tokens" else output.dim() == 4
        if not fits:
            wanted = {"nchw": "[N, C, h, w]", "nhwc": "[N, h, w, C]", "tokens": f"[N, {tokens}, C]"}[self.kind]
            raise BadInputError(
                "A module's output does not hold a map in the way that was said.",
                expected=wanted,
                found=f"shape {list(output.shape)}",
            )


NCHW = Layout()

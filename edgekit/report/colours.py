"""The two colour scales of every picture: one for maps, one for differences of maps.

Maps use viridis by Nathaniel J. Smith, Stefan van der Walt and Eric Firing, published under CC0
(https://bids.github.io/colormap/): equal steps of a value look like equal steps, for readers with the common forms of
colour blindness and in grey print too. The usual rainbow draws edges where a map has none.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ENGINE_HUE", "TEACHER_HUE", "difference_colours", "map_colours"]

_Values: TypeAlias = npt.NDArray[np.floating[Any]]
_Colours: TypeAlias = npt.NDArray[np.float64]

# Every fifth of the scale's 256 colours, two hexadecimal digits a channel. Drawn linearly between, no channel is more
# than 1 of 255 away from the full table.
_VIRIDIS = (
    "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a"
    "3a538b38598c355e8d33638d31688e2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d"
    "20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc7446c06f50c46a5ac864"
    "65cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725"
)

# Vermillion and blue of the palette by M. Okabe and K. Ito (Color Universal Design, 2008), chosen to be told apart by
# everybody. The style sheet's legend uses the same two.
ENGINE_HUE = (213, 94, 0)
TEACHER_HUE = (0, 114, 178)


def map_colours(values: _Values) -> _Colours:
    """Colours of map values.

    Args:
        values: Floating, any shape, finite; clipped to [0, 1].

    Returns:
        float64 [..., 3], RGB in [0, 255].
    """
    table = np.frombuffer(bytes.fromhex(_VIRIDIS), dtype=np.uint8).reshape(-1, 3).astype(np.float64)
    places = np.linspace(0.0, 1.0, len(table))
    clipped = np.clip(values, 0.0, 1.0)
    return np.stack([np.interp(clipped, places, table[:, channel]) for channel in range(3)], axis=-1)


def difference_colours(values: _Values) -> _Colours:
    """The hue of each difference's sign: `ENGINE_HUE` above zero, `TEACHER_HUE` below. Strength is left to opacity.

    Args:
        values: Floating, any shape, finite.

    Returns:
        float64 [..., 3], RGB in [0, 255].
    """
    hues = np.where(values[..., None] >= 0, np.array(ENGINE_HUE), np.array(TEACHER_HUE))
    return hues.astype(np.float64)

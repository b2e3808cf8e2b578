"""The known attribution methods."""

from __future__ import annotations

from edgekit.core.registry import Registry
from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["METHODS"]

METHODS: Registry[AttributionMethod] = Registry(
    "attribution method", {"grad-cam": "edgekit.teacher.methods.grad_cam:GRAD_CAM"}
)

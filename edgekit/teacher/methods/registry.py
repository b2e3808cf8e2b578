"""The known attribution methods."""

from __future__ import annotations

from edgekit.core.registry import Registry
from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["METHODS"]

METHODS: Registry[AttributionMethod] = Registry(
    "attribution method",
    {
        "grad-cam": "edgekit.teacher.methods.grad_cam:GRAD_CAM",
        "grad-cam++": "edgekit.teacher.methods.cams:GRAD_CAM_PLUS_PLUS",
        "gradient-x-input": "edgekit.teacher.methods.input_gradient:GRADIENT_TIMES_INPUT",
        "hires-cam": "edgekit.teacher.methods.cams:HIRES_CAM",
        "input-gradient": "edgekit.teacher.methods.input_gradient:INPUT_GRADIENT",
        "layer-cam": "edgekit.teacher.methods.cams:LAYER_CAM",
        "xgrad-cam": "edgekit.teacher.methods.cams:XGRAD_CAM",
    },
)

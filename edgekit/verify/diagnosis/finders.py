"""The registry of searches for faults: a line a family, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgekit.verify.diagnosis.answer_faults import find_class_index_fault, find_class_order_fault
from edgekit.verify.diagnosis.batch_faults import find_mixed_logits, find_mixed_maps
from edgekit.verify.diagnosis.golden_faults import find_repeated_samples
from edgekit.verify.diagnosis.input_faults import find_input_faults
from edgekit.verify.diagnosis.map_faults import find_map_faults
from edgekit.verify.diagnosis.network_faults import find_head_fault, find_map_branch_fault
from edgekit.verify.diagnosis.origin_faults import find_stale_engine
from edgekit.verify.diagnosis.pixel_faults import find_layout_faults, find_resize_faults
from edgekit.verify.diagnosis.scale_faults import find_scale_faults
from edgekit.verify.diagnosis.sign_faults import find_lost_relu, find_sign_faults
from edgekit.verify.diagnosis.suspect import Finder

__all__ = ["FINDERS"]

FINDERS: Mapping[str, Finder] = MappingProxyType(
    {
        "golden-set": Finder(("golden-repeated",), find_repeated_samples, "always"),
        "origin": Finder(("stale-engine",), find_stale_engine, "always"),
        "lost-relu": Finder(("relu-missing",), find_lost_relu, "always"),
        "maps": Finder(
            ("map-flipped", "map-rotated", "map-transposed", "map-shifted", "map-stale", "map-flat"),
            lambda suspect: find_map_faults(suspect.golden.maps, suspect.answers.maps),
        ),
        "signs": Finder(("sign-lost",), lambda suspect: find_sign_faults(suspect.golden.maps, suspect.answers.maps)),
        "scales": Finder(
            ("scale-saturated",), lambda suspect: find_scale_faults(suspect.golden.maps, suspect.answers.maps)
        ),
        "mixed-maps": Finder(
            ("batch-mixed-up",), lambda suspect: find_mixed_maps(suspect.golden.maps, suspect.answers.maps)
        ),
        "mixed-logits": Finder(
            ("batch-mixed-up",), lambda suspect: find_mixed_logits(suspect.golden.logits, suspect.answers.logits)
        ),
        "class-order": Finder(
            ("class-order",), lambda suspect: find_class_order_fault(suspect.golden, suspect.answers)
        ),
        "class-index": Finder(("map-of-another-class",), find_class_index_fault, asks=True),
        "preparation": Finder(("input-channel-order", "input-mean-std"), find_input_faults, asks=True),
        "layout": Finder(("input-layout",), find_layout_faults, asks=True),
        "resizing": Finder(("input-resize",), find_resize_faults, asks=True),
        "head": Finder(("head-scrambled",), find_head_fault, "unexplained"),
        "map-branch": Finder(("wrong-tap",), find_map_branch_fault, "unexplained"),
    }
)

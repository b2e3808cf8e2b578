"""The rows of the coverage table, read from architectures.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CASES", "PACKAGES", "Case"]

PACKAGES = ("torchvision", "timm", "edgekit")
_FILE = Path(__file__).resolve().parent / "architectures.yaml"


@dataclass(frozen=True)
class Case:
    """One architecture.

    Attributes:
        package: Whose architecture it is, one of `PACKAGES`.
        name: As the package calls it; for edgekit the name of the shared weights.
        family: Heading in the table.
        side: Height and width of the input, pixels.
        arguments: Further arguments of the factory.
        images: Which images it looks at; see `measuring.images`.
    """

    package: str
    name: str
    family: str
    side: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: str = "camvid-crops"

    @property
    def key(self) -> str:
        """Name of the row, unique in the table."""
        return f"{self.package}-{self.name}"

    @property
    def arch(self) -> str:
        """What `--arch` is given; not for those of edgekit."""
        return f"{self.package}:{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def _read() -> dict[str, Case]:
    cases = [Case(**entry) for entry in yaml.safe_load(_FILE.read_text(encoding="utf-8"))]
    return {case.key: case for case in cases}


CASES: Mapping[str, Case] = _read()

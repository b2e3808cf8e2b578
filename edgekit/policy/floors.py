"""What was measured of maps that nobody compressed, of the engine that ships, and of maps that say nothing.

A tolerance lies between two things that can be measured: what the same network makes of the same images when merely
something beside the point is different (a floor), and what maps reach that have nothing to do with the image (a
control). Here is how a measurement is written down; `edgekit.verify.noise` makes them, `edgekit.policy.suggest` makes
a policy of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import STATES, ScoreTable
from edgekit.metrics.statistics import summarise

__all__ = ["Against", "Measurement", "Role", "Source", "gaps"]

Role: TypeAlias = Literal["floor", "reached", "control"]
Source: TypeAlias = Literal["first", "repeat", "batch", "threads", "backend", "control"]
Against: TypeAlias = Literal["teacher", "first-run"]


@dataclass(frozen=True)
class Measurement:
    """One run over the golden set, compared with one yardstick.

    Attributes:
        graph: Which graph ran: its precision; of a control, the name of the control.
        engine: Registry name of the engine that ran it; empty for a control.
        varied: What was different, for people, such as "1 at a time"; may be empty.
        source: What was different about the run: nothing ("first", "repeat": the engine opened anew), the number of
            images asked at once ("batch"), "threads", the runtime ("backend"); or that it is a "control".
        against: The yardstick: the teacher's stored answers, or those of the same graph's first run.
        role: "floor" for what no compression causes; "reached" where quantisation, or the compression of the network,
            may have a part in it; "control" for maps that say nothing about the image.
        table: The scores; `teacher_class` is the yardstick's. Without the view of own classes.
    """

    graph: str
    engine: str
    varied: str
    source: Source
    against: Against
    role: Role
    table: ScoreTable

    @property
    def name(self) -> str:
        """What ran, for people, such as "fp32 on ort-cpu, 1 at a time"."""
        ran = f"{self.graph} on {self.engine}" if self.engine else self.graph
        return f"{ran}, {self.varied}" if self.varied else ran

    @property
    def identical(self) -> bool:
        """Whether every map and every answer is the yardstick's, as far as the metrics can see."""
        within = all(bool((gaps(name, column)[self.table.compared] == 0).all()) for name, column in self._columns)
        return within and bool(self.table.agrees.all())

    @property
    def _columns(self) -> tuple[tuple[str, npt.NDArray[np.float64]], ...]:
        return tuple(self.table.metrics.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: distributions instead of one row a sample."""
        table = self.table
        summaries = {name: summarise(column) for name, column in self._columns}
        return {
            "name": self.name,
            "graph": self.graph,
            "engine": self.engine,
            "source": self.source,
            "against": self.against,
            "role": self.role,
            "samples": len(table),
            "states": {state: table.state.count(state) for state in STATES},
            "agreeing": int(table.agrees.sum()),
            "identical": self.identical,
            "metrics": {name: None if each is None else each.to_dict() for name, each in summaries.items()},
        }


def gaps(metric: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far values are from a metric's best, float64 [N], 0 or more; NaN stays NaN.

    Args:
        metric: Name of a metric.
        values: float64 [N] in its range.
    """
    distance: npt.NDArray[np.float64] = np.abs(METRICS[metric].best - values)
    return distance

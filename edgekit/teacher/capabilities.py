"""What the toolchain can do with a model of a given format, and what to do where it cannot. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["AS_NETWORK", "COMPRESS_REMEDY", "GRAPH_ONLY", "Capabilities"]

COMPRESS_REMEDY = (
    "build with --recipe quantise-only, name a student of another architecture in the recipe, or save "
    "model.state_dict() and pass --arch package.module:factory"
)


@dataclass(frozen=True)
class Capabilities:
    """What can be done with a loaded model.

    Attributes:
        prune: Channels can be removed, and the removal recorded against an architecture.
        finetune: It can be trained further, and the result stored.
        remedy: What to do where one of them is False.

    Explaining, exporting and calibrating work for everything that loads: without them there would be no use in
    loading it.
    """

    prune: bool = True
    finetune: bool = True
    remedy: str = ""

    def to_rows(self) -> list[tuple[str, str, str]]:
        """What can be done, yes or no, and the remedy."""
        rows = [(name, "yes", "") for name in ("explain", "export", "calibrate")]
        for name, able in (("prune", self.prune), ("fine-tune", self.finetune)):
            rows.append((name, "yes" if able else "no", "" if able else self.remedy))
        return rows

    def check_compress(self, pruned: Sequence[str], trained: Sequence[str], *, format_name: str, where: str) -> None:
        """Refuse what cannot be done, before any of it is.

        Args:
            pruned: What is asked for that removes channels of the model, in words: "prune.rate 0.3".
            trained: What is asked for that changes its weights.
            format_name: The model's format, for the message.
            where: The model's file, for the message.

        Raises:
            BadInputError: Something is asked for that is impossible.
        """
        impossible = [*(() if self.prune else pruned), *(() if self.finetune else trained)]
        if impossible:
            raise BadInputError(
                f"A model of the format {format_name!r} cannot be pruned or fine-tuned.",
                where=where,
                expected="a recipe with prune.rate, sparsify.sparsity and finetune.epochs 0, or a student of another "
                "architecture",
                found=" and ".join(impossible),
                hint=self.remedy,
            )

    def check_qat(self, epochs: int, *, format_name: str, where: str) -> None:
        """Refuse quantisation-aware training where it is asked for and impossible.

        Args:
            epochs: Epochs asked for.
            format_name: The model's format, for the message.
            where: The model's file, for the message.

        Raises:
            BadInputError: The model cannot be trained further.
        """
        if epochs > 0 and not self.finetune:
            raise BadInputError(
                f"A model of the format {format_name!r} cannot be trained further, with quantisation or without.",
                where=where,
                expected="a recipe with qat.epochs 0",
                found=f"qat.epochs {epochs}",
                hint=self.remedy,
            )


AS_NETWORK = Capabilities()
GRAPH_ONLY = Capabilities(prune=False, finetune=False, remedy=COMPRESS_REMEDY)

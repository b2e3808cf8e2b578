"""A suggested policy as YAML that people read: every clause below the numbers that it came from.

Written by hand, since no YAML library keeps comments, and there is none on a device. Whoever writes the text to a file
reads it back with the strict reader and compares.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from edgekit.policy.clauses import clause_to_dict
from edgekit.policy.policy import POLICY_FORMAT
from edgekit.policy.suggest import Suggestion

__all__ = ["policy_as_yaml"]

_WIDTH = 112


def policy_as_yaml(suggestion: Suggestion, heading: Sequence[str], found: Sequence[str] = ()) -> str:
    """The policy as a YAML document with comments.

    Args:
        suggestion: The policy and where its clauses come from.
        heading: Paragraphs for the top. Whatever they hold stays a comment: names and versions come from elsewhere.
        found: One line a clause, of what the engine that ships made of it; none where that is not known.
    """
    policy = suggestion.policy
    lines = [line for paragraph in heading for line in _comment(paragraph)]
    lines += [
        f"format: {POLICY_FORMAT}",
        f"name: {_scalar(policy.name)}",
        f"confidence: {_scalar(policy.confidence)}",
        f"min_samples: {_scalar(policy.min_samples)}",
        "clauses:",
    ]
    for place, each in enumerate(suggestion.clauses):
        lines += _comment(each.comment, "  ")
        if found:
            lines += _comment(f"ships: {found[place]}", "  ")
        values = ", ".join(f"{key}: {_scalar(value)}" for key, value in clause_to_dict(each.clause).items())
        lines.append(f"  - {{{values}}}")
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str = "") -> list[str]:
    """Comment lines. What would end a line, or is no text, is shown as a question mark."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return [f"{indent}# {line}" for line in textwrap.wrap(plain, _WIDTH, break_on_hyphens=False)]


def _scalar(value: str | float) -> str:
    """JSON's scalars are YAML's; words that mean nothing else need no quotes."""
    if isinstance(value, str) and value.isascii() and value.replace("-", "").isalpha() and value.islower():
        return (
            value if value not in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"} else json.dumps(value)
        )
    return json.dumps(value)

"""Foreign text made harmless for whoever reads it next: terminals, Markdown, and runners that take lines for commands.

Names of classes, samples and policies come from elsewhere. XML, HTML and JSON have escapes of their own, which their
modules use; what all formats share is `visible`, and it comes first.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_NAME", "escape_json", "for_command", "for_command_property", "for_markdown", "visible"]

LONGEST_NAME = 200
"""Characters of a name that are shown. The JSON document has all of them."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!~|$])")
# Deleted, C1 controls, direction marks and line separators: JSON leaves them as they are, terminals do not.
_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str, limit: int | None = None) -> str:
    """Text on one line, with every character that does not print written as its escape.

    Args:
        text: Any.
        limit: Keep at most so many characters and end in "..." where there are more.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isprintable():
        return text
    # Not printable are controls (ANSI sequences begin with one), direction marks, halves of characters, what is not
    # assigned, every separator but the space, and with them all that some reader takes for the end of a line.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def for_markdown(text: str) -> str:
    """Text that GitHub's and GitLab's Markdown shows as it is, also in a cell of a table: no markup, no link."""
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _MARKDOWN.sub(r"\\\1", plain).replace("@", "&#64;").replace("://", "&#58;//")
    # Otherwise made a link without being asked.
    return re.sub(r"(?i)www\.", lambda found: found[0][:-1] + "&#46;", plain)


def for_command(text: str) -> str:
    """The message of a GitHub workflow command. Line breaks are kept: they become part of the message.

    Source: docs.github.com, "Workflow commands for GitHub Actions"; the escapes are those of actions/toolkit.
    """
    lines = "\n".join(visible(line) for line in text.split("\n"))
    return lines.replace("%", "%25").replace("\n", "%0A")


def for_command_property(text: str) -> str:
    """The value of a property of a GitHub workflow command, such as `title`."""
    return for_command(visible(text)).replace(":", "%3A").replace(",", "%2C")


def escape_json(document: str) -> str:
    """A JSON text whose strings hold nothing that a terminal would obey. Reads back as the same document."""
    return _JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)

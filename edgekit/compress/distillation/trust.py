"""Which code a student may be made by. Free of torch, so that a command can ask before anything heavy is loaded.

A recipe is a file, and a file must not decide which code runs. Built-in names and those of a library's own table are
looked up; a "package.module:factory" is only followed when the user named the very same one.
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.compress.options import CompressOptions
from edgekit.errors import BadInputError
from edgekit.teacher.architectures.libraries import split_library_name

__all__ = ["is_foreign_code", "with_named_student"]


def is_foreign_code(arch: str) -> bool:
    """Whether the architecture is somebody's "package.module:factory"."""
    return ":" in arch and split_library_name(arch) is None


def with_named_student(options: CompressOptions, said: str | None) -> CompressOptions:
    """The options with the student that the user named, if any, where the recipe leaves it open.

    Args:
        options: The recipe's.
        said: What the user said outside the recipe (`--student-arch`), None for nothing.

    Raises:
        BadInputError: The user named another student than the recipe; or the recipe asks for code that the user did
            not name.
    """
    student = options.distil.student
    if said is not None and student not in ("", said):
        raise BadInputError("--student-arch differs from the recipe's student.", expected=student, found=said)
    if said is None and is_foreign_code(student):
        raise BadInputError(
            "The recipe asks for code outside edgekit to be run.",
            where="compress.distil.student",
            found=student,
            hint=f"if you trust that code, say so with --student-arch {student}",
        )
    return options if said is None else replace(options, distil=replace(options.distil, student=said))

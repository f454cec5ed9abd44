"""Everything that can go wrong, as a tree of exceptions with reasons that stay stable.

A *reason* is a word for machines (``unknown_format``), a *detail* a sentence for a person.
"""

from __future__ import annotations

from typing import ClassVar

from cytowatch.record.status import ERROR_OF, Status

__all__ = [
    "ConfigError",
    "ConversionError",
    "CytowatchError",
    "DeploymentError",
    "ExtractionError",
    "FormatError",
    "IngestError",
    "RootError",
    "SeveralErrors",
    "TransientError",
    "stage_error",
]


class CytowatchError(Exception):
    """The root of all errors that cytowatch raises on purpose."""


class ConfigError(CytowatchError):
    """A configuration that cannot be used; `problems` names every one of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RootError(CytowatchError):
    """The tree cannot be used: not ours, of another layout, in use, or not writable."""


class SeveralErrors(CytowatchError):
    """Some of what was asked for was refused; `errors` has one for each."""

    def __init__(self, errors: list[CytowatchError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class TransientError(CytowatchError):
    """A fault of the machine and not of the file (a full disk, say): it waits and goes on by itself.

    `why` is a word for metrics, `detail` a sentence.
    """

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(f"{why}: {detail}")
        self.why = why
        self.detail = detail


class IngestError(CytowatchError):
    """An uploaded file cannot go on; it ends in `status`, with `reason` and `detail` in its manifest."""

    status: ClassVar[Status]

    def __init__(self, reason: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retryable = retryable


class FormatError(IngestError):
    """Not detected, not supported, incomplete or ambiguous."""

    status = Status.ERROR_FORMAT


class ExtractionError(IngestError):
    """The archive or directory could not be unpacked safely."""

    status = Status.ERROR_EXTRACTION


class ConversionError(IngestError):
    """Could not be converted."""

    status = Status.ERROR_CONVERSION


class DeploymentError(IngestError):
    """Could not be verified or published."""

    status = Status.ERROR_DEPLOYMENT


def stage_error(status: Status) -> type[IngestError]:
    """The kind of error that ends the stage of `status`.

    >>> stage_error(Status.CONVERTING).__name__
    'ConversionError'
    """
    kinds = (FormatError, ExtractionError, ConversionError, DeploymentError)
    return next(kind for kind in kinds if kind.status is ERROR_OF[status])

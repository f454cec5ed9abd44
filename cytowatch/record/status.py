"""The twelve statuses of an uploaded file, their codes, directories and order.

Source: the Cytomine user guide, "Uploaded file status".
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

__all__ = ["ERROR_OF", "FOLLOWERS", "STAGE_STATUSES", "Status"]


class Status(Enum):
    """What has become of an uploaded file; each value is `(code, directory)`.

    The directory is the one under ``stages/``; the three successes have none, because they end in
    ``storage/``. The member's name is the form that JSON uses.

    Examples
    --------
    >>> Status.DETECTING_FORMAT.code, Status.DETECTING_FORMAT.label
    (10, 'DETECTING FORMAT')
    >>> Status.ERROR_FORMAT.directory
    'error-format'
    """

    UPLOADED = (0, "uploaded")  #: Entirely received, not treated yet.
    DETECTING_FORMAT = (10, "detecting-format")  #: Finding out what it is, by content.
    EXTRACTING_DATA = (20, "extracting-data")  #: Unpacking an archive or a directory.
    CONVERTING = (30, "converting")  #: Writing a native pyramid.
    DEPLOYING = (40, "deploying")  #: Verifying and publishing into storage.
    DEPLOYED = (100, None)  #: Deployed as it is; also the state of every derived pyramid.
    EXTRACTED = (102, None)  #: An archive or directory whose members are uploaded files now.
    CONVERTED = (104, None)  #: A pyramid was derived from it; that one is DEPLOYED beside it.
    ERROR_FORMAT = (11, "error-format")  #: Not detected, not supported, incomplete or ambiguous.
    ERROR_EXTRACTION = (21, "error-extraction")  #: Could not be unpacked safely.
    ERROR_CONVERSION = (31, "error-conversion")  #: Could not be converted.
    ERROR_DEPLOYMENT = (41, "error-deployment")  #: Could not be verified or published.

    def __init__(self, code: int, directory: str | None) -> None:
        self.code = code
        self.directory = directory

    @property
    def label(self) -> str:
        """The name as people see it, with a space."""
        return self.name.replace("_", " ")

    @property
    def is_error(self) -> bool:
        """Whether it ended badly: an odd code."""
        return self.code % 2 == 1

    @property
    def is_success(self) -> bool:
        """Whether it ended well: a code of 100 or more."""
        return self.code >= 100

    @property
    def is_final(self) -> bool:
        """Whether nothing follows, by success or by error."""
        return self.is_error or self.is_success


#: The statuses in which work is done, each with the error that it may end in.
ERROR_OF = MappingProxyType(
    {
        Status.DETECTING_FORMAT: Status.ERROR_FORMAT,
        Status.EXTRACTING_DATA: Status.ERROR_EXTRACTION,
        Status.CONVERTING: Status.ERROR_CONVERSION,
        Status.DEPLOYING: Status.ERROR_DEPLOYMENT,
    }
)

#: What may follow each status when all goes as it should or ends in an error.
FOLLOWERS = MappingProxyType(
    {
        Status.UPLOADED: frozenset({Status.DETECTING_FORMAT}),
        Status.DETECTING_FORMAT: frozenset(
            {Status.EXTRACTING_DATA, Status.CONVERTING, Status.DEPLOYING, Status.ERROR_FORMAT}
        ),
        Status.EXTRACTING_DATA: frozenset({Status.EXTRACTED, Status.ERROR_EXTRACTION}),
        Status.CONVERTING: frozenset({Status.DEPLOYING, Status.ERROR_CONVERSION}),
        Status.DEPLOYING: frozenset({Status.DEPLOYED, Status.CONVERTED, Status.ERROR_DEPLOYMENT}),
        **{status: frozenset[Status]() for status in Status if status.is_final},
    }
)

#: Every status that has a directory under ``stages/``, in the order of the way.
STAGE_STATUSES = tuple(
    sorted((s for s in Status if s.directory is not None), key=lambda s: (s.is_error, s.code))
)

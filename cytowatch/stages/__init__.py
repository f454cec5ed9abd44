"""The stages: each a function of one uploaded file that returns an outcome, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from cytowatch.model import Outcome, UploadedFile
from cytowatch.record.status import Status
from cytowatch.stages.convert import convert
from cytowatch.stages.deploy import deploy
from cytowatch.stages.detect import detect
from cytowatch.stages.extract import extract

__all__ = ["STAGES"]

STAGES: MappingProxyType[Status, Callable[[UploadedFile], Outcome]] = MappingProxyType(
    {
        Status.DETECTING_FORMAT: detect,
        Status.EXTRACTING_DATA: extract,
        Status.CONVERTING: convert,
        Status.DEPLOYING: deploy,
    }
)

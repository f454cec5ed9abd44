"""Adding files: tus 1.0 at ``/uploads``; the files lie in ``inbox/.uploads`` until they are whole."""

from __future__ import annotations

from cytowatch.panel.uploads.web import Uploads

__all__ = ["Uploads"]

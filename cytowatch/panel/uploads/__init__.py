"""Adding files: tus 1.0 at ``/uploads``, and what lies in ``inbox/.uploads`` until it is whole."""

from __future__ import annotations

from cytowatch.panel.uploads.web import Uploads

__all__ = ["Uploads"]

"""What may be wrong with an index or with a file that is looked for."""

from __future__ import annotations

from pipeline.base.errors import EXIT_DATA, XmodalError


class IndexFolderError(XmodalError):
    """An index is absent, damaged, or of another model.

    Kinds: ``missing``, ``not-an-index``, ``schema``, ``damaged``, ``other-model``, ``empty``.
    """

    exit_code = EXIT_DATA
    kind = "index"


class QueryError(XmodalError):
    """What cannot be looked for, or embedded.

    Kinds: ``too-short``, ``too-long``, ``silent``, ``no-notes``, ``not-finite``, ``query``.
    """

    exit_code = EXIT_DATA
    kind = "query"

"""The embedded model behind a socket, with its demo profiles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.local_server import local_server


@pytest.fixture(scope="package")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    with local_server(tmp_path_factory.mktemp("museum")) as address:
        yield address

"""What transformers shows by itself, and is not wanted."""

import contextlib
import logging
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def no_bars(local: bool = True) -> Iterator[None]:
    """Without the library's progress bars, which flash for every small file; a download (not local) keeps its own."""
    if local:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def no_report() -> Iterator[None]:
    """Without the table of weights that a model has no use for, such as a projection that is read by itself; those that
    it lacks are for the caller to look at.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)

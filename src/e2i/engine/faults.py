"""What a foreign error of a step becomes, in this process or in a worker."""

from __future__ import annotations

import errno

from e2i.domain.foreign_errors import without_words
from e2i.errors import E2IError, StepFailed, StorageError

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG})


def failure(error: Exception, *, where: str) -> E2IError:
    """One of ours: a disk that cannot be written and memory that ran out are the user's to mend, anything else is a fault of E2I.

    It is stored and shown, so it does not repeat the foreign words; they stay in `__cause__`, or in a note with the worker's traceback.
    """
    if isinstance(error, MemoryError):
        return StepFailed("memory ran out.", where=where, advice="Use fewer rows or columns, or a larger machine.")
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        place = error.filename2 or error.filename
        what = f"{'the disk' if place is None else place}: {error.strerror}."
        return StorageError(what, where=where, advice="Free space, or give the right to write, then run again: finished steps are kept.")
    return StepFailed(f"{without_words(error)}.", where=where, advice="This is a fault of E2I: please report it.")

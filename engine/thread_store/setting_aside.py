"""A damaged file stays beside what is put in its place. Blocking; what fails raises `OSError`."""

from __future__ import annotations

import os
import shutil
import time
from typing import Final

from engine.errors import StoreError

__all__ = ["ASIDE_SUFFIX", "set_aside", "sync_folder"]

ASIDE_SUFFIX: Final = ".damaged-"


def set_aside(path: str) -> str:
    """Gives a file a second name that no reader takes for the first."""
    stamp = f"{path}{ASIDE_SUFFIX}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    for number in range(1000):
        aside = stamp if not number else f"{stamp}-{number}"
        try:
            os.link(path, aside)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            with open(path, "rb") as old, open(aside, "xb") as new:
                shutil.copyfileobj(old, new, 1 << 20)
                new.flush()
                os.fsync(new.fileno())
            shutil.copystat(path, aside)
        return aside
    raise StoreError(f"there are a thousand damaged copies of {path} already; remove some")


def sync_folder(path: str) -> None:
    """Makes what happened to the name of a file durable."""
    handle = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

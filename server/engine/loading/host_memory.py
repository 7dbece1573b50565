"""Memory of the host: what is free, and keeping what the last step used for the next."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["free_memory_bytes", "keep_freed_memory"]

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")

# glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGEST: Final = 2**31 - 1


def free_memory_bytes() -> int:
    """Bytes this process may still take: the machine's, or its control group's if less.

    `psutil` knows the machine's alone; a container's limit is what ends a process there.
    Pages of files that were read once count as free, since the kernel drops them first: those of
    a checkpoint that was just copied into a container may be most of what it "uses".
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _MEMINFO.is_file():  # counts what the kernel would give back, unlike sysconf
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (_CGROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()) + _idle_file_bytes())
    return max(free, 0)


def _idle_file_bytes() -> int:
    """Bytes of files that count as used by this control group, but are dropped first."""
    path = _CGROUP / "memory.stat"
    if not path.is_file():
        return 0
    fields = dict(line.split() for line in path.read_text().splitlines())
    return int(fields.get("inactive_file", 0))


def keep_freed_memory() -> None:
    """Let the allocator keep freed memory instead of handing it back to the kernel.

    Every step frees and takes again the same few tens of megabytes. By default glibc returns
    them, and the kernel zeroes them page by page for the next step: a tenth of a prefill. One
    arena, because those of other threads are too small to keep them. Changes the whole process;
    does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)

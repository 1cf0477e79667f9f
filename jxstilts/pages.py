"""Memory in large pages. Imports next to nothing: what happens here, happens twice."""

import os
import sys

REQUEST = "glibc.malloc.hugetlb"
SYSTEM = "/sys/kernel/mm/transparent_hugepage/enabled"


def large() -> None:
    """Starts this program again, in this process, with a C library that asks for large pages for large blocks (Linux).

    XLA on a CPU allocates a step's temporaries anew each time; in pages of 4 KiB those of XLM-R base are 600,000 page
    faults a step (benchmarks/RESULTS.md). glibc reads the setting at a process's start only. Returns, having done
    nothing, where the system gives large pages unasked or not at all, or where `GLIBC_TUNABLES` already decides.
    """
    already = os.environ.get("GLIBC_TUNABLES", "")
    try:
        with open(SYSTEM) as file:
            on_request = "[madvise]" in file.read()
        if on_request and REQUEST not in already and os.path.isfile(sys.argv[0]):  # else read from stdin: gone
            os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (already, f"{REQUEST}=1")))
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # no such kernel, or no program to start: slower is no reason to fail
        pass

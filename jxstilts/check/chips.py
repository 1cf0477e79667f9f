"""Accelerators that this machine lacks: TPU slices to compile for, sizes of memory, and a chip's peak rates.

Peak rates are the vendors' figures, so a time that is predicted from them is a lower bound.
"""

import dataclasses
import os
import re

from jxstilts.runtime import InputError, suggest
from jxstilts.tracking import PEAK_FLOPS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """memory: bytes that the TPU compiler (libtpu 0.0.42) says a program can have, a little less than is there.

    flops: per second, dense bfloat16. bandwidth: of its memory, bytes/s. links: bytes/s that a chip can send to its
    neighbours over all its links together, half of what the vendor calls bidirectional.
    """

    memory: int
    flops: float
    bandwidth: float
    links: float


# docs.cloud.google.com/tpu/docs/ v5e, v5p and v6e: "HBM bandwidth", "bidirectional inter-chip interconnect bandwidth"
CHIPS = {
    "v5e": Chip(int(15.75 * GIB), PEAK_FLOPS["TPU v5e"], 819e9, 200e9),
    "v5p": Chip(int(95.74 * GIB), PEAK_FLOPS["TPU v5p"], 2765e9, 600e9),
    "v6e": Chip(int(31.25 * GIB), PEAK_FLOPS["TPU v6e"], 1600e9, 400e9),
}
# modal.com/docs/reference/modal.gpu; H100, H200: names of Google's Vertex AI accelerator types. GB of 1000^3 bytes.
GPUS = {
    "t4": 16e9, "l4": 24e9, "a10g": 24e9, "a100-40gb": 40e9, "a100-80gb": 80e9, "h100": 80e9, "h200": 141e9,
}  # fmt: skip
UNITS = {"": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def chip_of(topology: str) -> Chip:
    """Returns the chip of a slice such as v5e:4x8. Raises InputError for one that is not known."""
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise InputError(f"--topology={topology}: {suggest('TPU', name, CHIPS)}")
    return CHIPS[name]


def devices(topology: str) -> list:
    """Returns the abstract devices of a TPU slice, for which the real compiler compiles without a TPU.

    Raises InputError where there is no such slice, or no TPU compiler.
    """
    import importlib.util

    chip_of(topology)
    if not re.fullmatch(r"\w+:\d+(x\d+){1,2}", topology):
        raise InputError(f"--topology={topology}: a TPU and the shape of a slice, such as v5e:4x8 or v5p:2x2x2")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f"--topology={topology} needs the TPU compiler, libtpu: pip install 'jxstilts[tpu]'")
    # Unless told otherwise libtpu looks for the machine's TPU, asks a metadata server for it, and serves one process at
    # a time. Compiling needs no TPU: several may do it at once, or beside a training.
    alone = {
        "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }  # fmt: skip
    for key, value in alone.items():
        os.environ.setdefault(key, value)
    import jax
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"--topology={topology}: the TPU compiler refuses this slice: {_line(error)}") from error


def memory(text: str) -> int:
    """Reads --device_memory: a name of CHIPS or GPUS, or bytes, as in 24GiB. Raises InputError."""
    name = text.strip().lower()
    if name in CHIPS:
        return CHIPS[name].memory
    if name in GPUS:
        return int(GPUS[name])
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]i?b)?", name)
    if not found:
        known = suggest("device", text, (*CHIPS, *GPUS))
        raise InputError(f"--device_memory={text}: a size such as 24GiB, or the name of a device; {known}")
    return int(float(found[1]) * UNITS[(found[2] or "").upper()])


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

"""Execute every page as an older processor would; `make portable` calls this.

The libraries that compute choose their instructions by the processor: sums are
formed in another order, and the last bits differ. Environment variables make
them choose the oldest ones, so that one machine shows whether the stored
outputs repeat on others. (On processors that are not x86 some have no effect.)
"""

import os
import subprocess
import sys

from check import PAGES, PYTEST, ROOT

OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",  # PyTorch's own kernels: no AVX
    "MKL_CBWR": "COMPATIBLE",  # Intel MKL
    "ONEDNN_MAX_CPU_ISA": "SSE41",  # oneDNN: convolutions
    "OPENBLAS_CORETYPE": "Nehalem",  # OpenBLAS: NumPy and SciPy
}


def main():
    """Compare all outputs, or those of the pages that are named."""
    command = [*PYTEST, *PAGES, *(sys.argv[1:] or ["book"])]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | OLD_PROCESSOR)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()

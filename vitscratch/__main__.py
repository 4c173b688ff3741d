"""`python -m vitscratch` is the command `vitscratch`."""

import sys

from vitscratch.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Lets `python -m mfdnn`, and so torchrun, run the command."""

from mfdnn.cli import main

if __name__ == "__main__":
    main()

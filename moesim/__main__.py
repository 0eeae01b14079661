"""`python -m moesim` is `moesim`."""

from moesim.cli import main

if __name__ == "__main__":
    main()

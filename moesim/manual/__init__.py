"""Pages of the manual that the program writes of itself: `python -m moesim.manual` brings docs/ up to date."""

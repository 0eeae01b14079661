"""The live engine: the simulator's decisions with real copies and real kernels (docs/live.md)."""

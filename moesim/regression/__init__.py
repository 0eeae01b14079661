"""`moesim regress`: experiments run small, their numbers held against committed baselines (docs/regress.md)."""

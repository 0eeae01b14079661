"""What `moesim regress` says: numbers held against baselines, in words, figures and a page (docs/regress.md)."""

"""Checks that every policy must pass, on small servers of round numbers (`moesim policies check`).

`cache`, `prefetch`, `batch` and `miss` hold the contract of each kind, `scramble` finds out who knows more than its
level shows (`world` is what is outside the server, `recording` what it decides), `toy` is the server, `suite` runs all
of it on one policy and reports.
"""

"""A whole step as compiled code (numba): what `moesim.sim.engine` does where nothing but demands moves keys.

The rules are those of docs/model.md; `Engine` with `direct=True` is their definition here, and the two agree to the
nanosecond. Only `ask` and `run` of `steps` are called from outside and cached; the rest is compiled into them. All but
`layout` need numba and are imported only when they are used (moesim.sim.compiled).
"""

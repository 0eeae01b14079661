"""Formats of arrival files that can be read, one a module; `moesim.trace.arrivals.read_arrivals` chooses among them."""

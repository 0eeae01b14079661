"""Timelines worked out by hand: `scenes` holds them, `watch` sees what the simulator does, `draw` makes pictures."""

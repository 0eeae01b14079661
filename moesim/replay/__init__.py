"""Untimed replay of routing: which expert cache would have hit what (docs/cache.md)."""

from moesim.replay.capacity import Capacity
from moesim.replay.grid import Cell, Row, Settings, replay
from moesim.replay.players import Player, players
from moesim.replay.stream import Stream, stream_of

__all__ = ["Capacity", "Cell", "Player", "Row", "Settings", "Stream", "players", "replay", "stream_of"]

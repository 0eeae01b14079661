"""Protocols, information views and the registry of policies."""

from moesim.policy.base import KINDS, LEVELS, BatchPolicy, CachePolicy, Policy, Pool, PrefetchPolicy
from moesim.policy.queue import Limits, Queued
from moesim.policy.registry import check, find, make, names, register
from moesim.policy.view import FAR, VIEWS, LayerView, OracleView, QueueView, StepView, View

__all__ = [
    "FAR", "KINDS", "LEVELS", "VIEWS", "BatchPolicy", "CachePolicy", "LayerView", "Limits", "OracleView", "Policy",
    "Pool", "PrefetchPolicy", "QueueView", "Queued", "StepView", "View", "check", "find", "make", "names", "register",
]  # fmt: skip

"""Protocols, information views and the registry of policies."""

from moesim.policy.base import (
    KINDS,
    LEVELS,
    BatchPolicy,
    CachePolicy,
    Handling,
    Missing,
    MissPolicy,
    Policy,
    Pool,
    PrefetchPolicy,
)
from moesim.policy.queue import Limits, Queued
from moesim.policy.registry import check, find, levels, make, names, parameters, register
from moesim.policy.view import (
    FAR,
    FAR_VIEWS,
    NEAR_VIEWS,
    LayerView,
    OracleView,
    PredictedView,
    QueueView,
    StepView,
    View,
)

__all__ = [
    "FAR",
    "FAR_VIEWS",
    "KINDS",
    "LEVELS",
    "NEAR_VIEWS",
    "BatchPolicy",
    "CachePolicy",
    "Handling",
    "LayerView",
    "Limits",
    "MissPolicy",
    "Missing",
    "OracleView",
    "Policy",
    "Pool",
    "PredictedView",
    "PrefetchPolicy",
    "QueueView",
    "Queued",
    "StepView",
    "View",
    "check",
    "find",
    "levels",
    "make",
    "names",
    "parameters",
    "register",
]

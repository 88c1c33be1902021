"""Keeps one instance of a service registered in etcd, where Pointsman finds it.

A lease of 15 s, one key under it, and a loop that never gives up; on SIGTERM the record says `draining`, requests get
their time, the lease is given back, and only then does the program stop. The same as `pointsman register`, from inside.
It needs `aetcd` and nothing else of this project.
"""

from .instance import Instance, State
from .lifespan import registered
from .registration import Registration
from .registry import IdTaken, Registry

__all__ = ["IdTaken", "Instance", "Registration", "Registry", "State", "registered"]

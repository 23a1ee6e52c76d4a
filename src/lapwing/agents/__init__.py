"""Algorithms, one file each, and the list of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from lapwing.agent import Agent, RewardFacts
from lapwing.agents.act import ActAgent, ActConfig
from lapwing.agents.bc import BcAgent, BcConfig
from lapwing.agents.lapo import LapoAgent, LapoConfig
from lapwing.agents.reward import RewardAgent, RewardConfig
from lapwing.agents.sac import SacAgent, SacConfig
from lapwing.errors import ConfigError
from lapwing.spec import RobotSpec


class Algorithm(NamedTuple):
    """The settings and the learner of an algorithm."""

    config: type[Any]
    agent: type[Any]


ALGORITHMS = {
    "lapo": Algorithm(LapoConfig, LapoAgent),
    "act": Algorithm(ActConfig, ActAgent),
    "bc": Algorithm(BcConfig, BcAgent),
    "sac": Algorithm(SacConfig, SacAgent),
    "reward": Algorithm(RewardConfig, RewardAgent),
}


def build_agent(name: str, config: Any, spec: RobotSpec, facts: RewardFacts, restore: bool = False) -> Agent:
    """A fresh agent. `restore`: its weights will be loaded from a checkpoint, so no pretrained ones are looked for."""
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm {name!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    if not restore and config.vision.weights == "none" and config.vision.norm == "frozen":
        raise ConfigError("norm 'frozen' without pretrained weights normalises nothing; use --norm auto")
    if restore:
        config = replace(config, vision=replace(config.vision, weights="none"))
    agent: Agent = ALGORITHMS[name].agent(config, spec, facts)
    return agent

"""Algorithms, one file each, and the list of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from lapwing.agent import Learner, RewardFacts
from lapwing.agents.act import ActAgent, ActConfig
from lapwing.agents.bc import BcAgent, BcConfig
from lapwing.agents.iql import IqlAgent, IqlConfig
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.agents.reward import RewardAgent, RewardConfig
from lapwing.agents.sac import SacAgent, SacConfig
from lapwing.agents.td3bc import Td3BcAgent, Td3BcConfig
from lapwing.errors import ConfigError
from lapwing.spec import RobotSpec


class Algorithm(NamedTuple):
    """The settings and the learner of an algorithm."""

    config: type[Any]
    agent: type[Any]


ALGORITHMS = {
    "lapo": Algorithm(LapoConfig, LapoAgent),
    "act": Algorithm(ActConfig, ActAgent),
    "iql": Algorithm(IqlConfig, IqlAgent),
    "td3bc": Algorithm(Td3BcConfig, Td3BcAgent),
    "bc": Algorithm(BcConfig, BcAgent),
    "sac": Algorithm(SacConfig, SacAgent),
    "reward": Algorithm(RewardConfig, RewardAgent),
}


def build_agent(name: str, config: Any, spec: RobotSpec, facts: RewardFacts, restore: bool = False) -> Learner:
    """A fresh learner. `restore`: its weights will come from a checkpoint, so no pretrained ones are looked for."""
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm {name!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    if not restore and config.vision.weights == "none" and config.vision.norm == "frozen":
        raise ConfigError("norm 'frozen' without pretrained weights normalises nothing; use --norm auto")
    if restore:
        config = replace(config, vision=replace(config.vision, weights="none"))
    agent: Learner = ALGORITHMS[name].agent(config, spec, facts)
    return agent

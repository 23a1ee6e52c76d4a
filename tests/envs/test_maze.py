"""D4RL's mazes: the ways through them, the physics, the world, and the controller that data are drawn with."""

from __future__ import annotations

from collections import deque
from importlib.util import find_spec
from itertools import islice, pairwise

import numpy as np
import pytest

from lapwing.envs import D4RL_DATA, WORLDS, make_expert_world, make_world, sample_world, world_spec
from lapwing.envs.maze_layout import MAZES, Maze
from lapwing.episode import Array, Episode
from lapwing.errors import SpecError, WorldError

if find_spec("mujoco") is None:  # importing it here would leave lapwing no choice of what to draw with
    pytest.skip("the mazes need the extra [sim]", allow_module_level=True)
from lapwing.envs.maze import PointMaze
from lapwing.envs.maze_expert import Controller, demonstrations
from lapwing.envs.maze_physics import Physics

UMAZE = MAZES["pointmaze-umaze"]


@pytest.fixture(params=MAZES)
def maze(request: pytest.FixtureRequest) -> Maze:
    return MAZES[request.param]


@pytest.fixture
def world() -> PointMaze:
    return PointMaze(UMAZE, 3)


def test_the_mazes_are_those_of_d4rl(maze: Maze) -> None:
    assert {name: one.max_steps for name, one in MAZES.items()} == {
        "pointmaze-umaze": 300,
        "pointmaze-medium": 600,
        "pointmaze-large": 800,
    }
    assert {name: one.goal.tolist() for name, one in MAZES.items()} == {
        "pointmaze-umaze": [1, 1],
        "pointmaze-medium": [6, 6],
        "pointmaze-large": [7, 9],
    }
    assert maze.walls[[0, -1]].all()
    assert maze.walls[:, [0, -1]].all()
    assert maze.name in WORLDS
    assert D4RL_DATA[maze.name] == maze.name.replace("pointmaze", "maze2d") + "-v1"


def steps_to(maze: Maze, end: int) -> list[int]:
    """How many cells away each cell is, by flooding."""
    distance = {end: 0}
    waiting = deque([end])
    while waiting:
        here = waiting.popleft()
        for other in np.flatnonzero(np.abs(maze.cells - maze.cells[here]).sum(1) == 1):
            if int(other) not in distance:
                distance[int(other)] = distance[here] + 1
                waiting.append(int(other))
    return [distance[cell] for cell in range(len(maze.cells))]


def test_every_step_of_a_way_is_to_a_neighbour_that_is_nearer(maze: Maze) -> None:
    for end in range(len(maze.cells)):
        distance = np.array(steps_to(maze, end))
        following = maze.next_cell[:, end]
        assert following[end] == end
        assert (distance[following] == np.maximum(distance - 1, 0)).all()
        assert (np.abs(maze.cells - maze.cells[following]).sum(1) <= 1).all()


def test_a_place_is_in_the_cell_that_it_lies_in() -> None:
    middle = UMAZE.cells - 0.2
    for corner in ([0.49, 0.49], [-0.49, 0.49], [-0.49, -0.49]):
        assert (UMAZE.cell_at(middle + corner) == np.arange(len(UMAZE.cells))).all()


def test_reward_within_half_a_metre_of_the_goal() -> None:
    places = np.array([[1.5, 1, 0, 0], [1.51, 1, 0, 0], [1.3, 1.4, 9, 9], [1.4, 1.4, 0, 0]])
    assert UMAZE.at_goal(places).tolist() == [True, False, True, False]


def gymnasium_point(maze: Maze) -> object:
    gymnasium = pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics, the reference, is missing")
    maps = gymnasium.envs.maze.maps
    layout = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}
    module = pytest.importorskip("gymnasium_robotics.envs.maze.point_maze")
    return module.PointMazeEnv(layout[maze.name.removeprefix("pointmaze-")]).point_env


def test_a_ball_moves_as_in_gymnasium_robotics(maze: Maze) -> None:
    """Their maze is turned: their x is our y, from the middle, and their y our x the other way round."""
    theirs, physics = gymnasium_point(maze), Physics(maze)
    rows, columns = maze.walls.shape

    def turned(state: Array) -> Array:
        x, y, along, across = state
        return np.array([y + 0.2 - (columns - 1) / 2, (rows - 1) / 2 - x - 0.2, across, -along])

    rng = np.random.default_rng(0)
    furthest, touching = 0.0, 0
    for state in maze.draw_states(rng, 6):
        theirs.reset(seed=0)
        theirs.set_state(*turned(state).reshape(2, 2))
        for action in rng.uniform(-1, 1, (6, 2)).repeat(20, 0):  # long enough to run into walls
            observed = theirs.step(np.array([action[1], -action[0]]))[0]
            state = physics.advance(state[None], action[None])[0]
            furthest = max(furthest, np.abs(turned(state) - observed).max())
            touching += theirs.data.ncon > 0 and np.abs(theirs.data.qfrc_constraint).max() > 1
    theirs.close()
    assert touching > 50
    assert furthest < 1e-4


def test_a_ball_is_pushed_slowed_and_stopped_by_walls() -> None:
    physics = Physics(UMAZE)
    mass = 1000 * 4 / 3 * np.pi * 0.1**3
    pushed = physics.advance(np.array([[2.8, 0.8, 0.0, 0.0]]), np.array([[0.0, 1.0]]))[0]
    assert pushed[3] == pytest.approx(0.01 * 100 / (mass + 0.01), rel=1e-3)  # damping 1, implicit
    assert pushed[1] == pytest.approx(0.8 + 0.01 * pushed[3])
    fast = physics.advance(np.array([[2.8, 0.8, 0.0, 40.0]]), np.zeros((1, 2)))[0]
    assert fast[3] == pytest.approx(5 * mass / (mass + 0.01), rel=1e-3)
    state = np.array([[0.8, 0.8, 0.0, 0.0]])
    for _ in range(200):
        state = physics.advance(state, np.array([[-1.0, 0.0]]))
    assert state[0, 0] == pytest.approx(0.4, abs=0.02)  # the wall is half a cell off, the ball 0.1 wide
    assert abs(state[0, 2]) < 0.05


def test_a_ball_does_not_depend_on_those_beside_it() -> None:
    states = UMAZE.draw_states(np.random.default_rng(1), 5)
    actions = np.random.default_rng(2).uniform(-1, 1, (5, 2))
    physics = Physics(UMAZE)
    together = physics.advance(states, actions)
    alone = np.concatenate([physics.advance(states[[one]], actions[[one]]) for one in (3, 1, 0, 2, 4)])
    assert np.array_equal(together[[3, 1, 0, 2, 4]], alone)


def test_an_episode_is_cut_and_never_ends_by_itself(world: PointMaze) -> None:
    assert world.spec == world_spec("pointmaze-umaze")
    first = world.reset([5, 6])
    assert first.state.dtype == np.float32
    assert (first.images, first.state.shape) == ({}, (3, 4))
    lengths = np.zeros(3, int)
    for _ in range(300):
        observation, reward, terminated, truncated, info = world.step(np.zeros((3, 2)))
        lengths += ~truncated
        assert not terminated.any()
        assert (reward[:2] == UMAZE.at_goal(observation.state)[:2]).all()
    assert truncated.all()
    assert lengths.tolist() == [299, 299, 0]
    assert info["success"].tolist()[:2] == UMAZE.at_goal(observation.state)[:2].tolist()
    again = world.step(np.ones((3, 2)))
    assert np.array_equal(again[0].state, observation.state)
    assert not again[1].any()


def test_the_same_seed_starts_the_same_episode(world: PointMaze) -> None:
    first = world.reset([5, 6, 7]).state
    assert np.array_equal(make_world("pointmaze-umaze").reset([6]).state[0], first[1])
    starts = np.concatenate([world.reset([number, number + 1, number + 2]).state for number in range(0, 300, 3)])
    assert {tuple(cell) for cell in np.rint(starts[:, :2])} == {tuple(cell) for cell in UMAZE.cells}
    assert np.abs(starts[:, :2] - np.rint(starts[:, :2])).max() <= 0.1001
    assert starts[:, 2:].std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("actions", "message"),
    [(np.zeros((2, 2)), "shape (2, 2), expected (3, 2)"), (np.full((3, 2), np.nan), "'x_force' of copy 0 is nan")],
)
def test_actions_that_do_not_fit(world: PointMaze, actions: Array, message: str) -> None:
    with pytest.raises(WorldError, match="step before the first reset"):
        world.step(np.zeros((3, 2)))
    world.reset([0])
    with pytest.raises(SpecError) as caught:
        world.step(actions)
    assert message in str(caught.value)


@pytest.mark.parametrize("quality", ["expert", "noisy"])
def test_the_operator_brings_the_ball_to_the_goal_and_keeps_it_there(quality: str) -> None:
    env, expert = make_expert_world("pointmaze-umaze", quality=quality)
    for seed in range(4):
        observation = env.reset(seed)
        expert.reset(seed)
        truncated, earned = False, 0.0
        while not truncated:
            observation, reward, _, truncated, info = env.step(expert(observation))
            earned += reward
        assert info["success"]
        assert earned > 150


def test_worlds_without_an_operator_say_so() -> None:
    for make in (make_expert_world, sample_world):
        seed = {} if make is make_expert_world else {"seed": 0}
        with pytest.raises(WorldError, match="world 'door' has no scripted operator"):
            make("door", quality="expert", **seed)
        with pytest.raises(WorldError, match="quality 'mixed' is not there in world 'pointmaze-"):
            make("pointmaze-umaze", quality="mixed", **seed)


def segments(maze: Maze, noise: float, count: int, seed: int = 0) -> list[Episode]:
    return list(islice(demonstrations(maze, noise, seed), count))


def test_segments_lead_to_their_goals_and_are_rewarded_at_the_mazes_own(maze: Maze) -> None:
    for one in segments(maze, 0.5, 60):
        goal = one.sensors["goal"][0]
        assert np.linalg.norm(one.state[-2, :2] - np.rint(goal)) < 0.1 or one.num_steps == maze.max_steps
        assert (one.reward == maze.at_goal(one.state[:-1])).all()
        assert (one.terminated, one.success, one.state.dtype, one.action.dtype) == (False, None, np.float32, np.float32)
        assert np.abs(one.action).max() <= 1
        assert np.array_equal(np.c_[one.sensors["qpos"], one.sensors["qvel"]], one.state)
        assert one.num_steps <= maze.max_steps


def test_segments_obey_the_physics() -> None:
    physics = Physics(UMAZE)
    one = max(segments(UMAZE, 0.5, 30), key=lambda episode: episode.num_steps)
    moved = physics.advance(one.state[:-1].astype(np.float64), one.action)
    assert np.abs(moved - one.state[1:]).max() < 1e-3  # single precision, near walls too


def test_the_same_seed_draws_the_same_segments() -> None:
    first, second, other = (segments(UMAZE, 0.5, 30, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a.state, b.state) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].state, other[0].state)


def test_without_noise_the_controller_is_the_published_one() -> None:
    """p 10, d -1, clipped to 1; the waypoint is the next cell's numbers, less up to 0.2."""
    controller, physics = Controller(UMAZE, 1, np.random.default_rng(0)), Physics(UMAZE)
    state = np.array([[3.0, 1.0, 0.0, 0.0]])
    controller.aim(np.array([0]), state[:, :2], np.array([[1.05, 0.95]]))
    seen = []
    for _ in range(300):
        action, arrived = controller.act(state)
        if arrived.all():
            break
        seen.append(tuple(np.rint(state[0, :2]).astype(int)))
        state = physics.advance(state, action)
    assert arrived.all()
    visited = [here for here, after in pairwise([*seen, (0, 0)]) if here != after]
    assert visited == [(3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    near_by = Controller(UMAZE, 1, np.random.default_rng(0))
    near_by.aim(np.array([0]), np.array([[1.0, 1.0]]), np.array([[1.0, 1.0]]))
    action, _ = near_by.act(np.array([[1.02, 0.95, 0.3, -0.1]]))
    assert action[0].tolist() == pytest.approx([-0.2 - 0.3, 0.5 + 0.1])


def test_the_data_are_those_of_maze2d_umaze() -> None:
    """Within the noise of 100,000 steps of the statistics of D4RL's own file."""
    drawn = segments(UMAZE, 0.5, 1250)
    state = np.concatenate([one.state[:-1] for one in drawn])
    action = np.concatenate([one.action for one in drawn])
    reward = np.concatenate([one.reward for one in drawn])
    assert state.std(0) == pytest.approx([0.900, 0.709, 2.213, 2.468], rel=0.04)
    assert action.std(0) == pytest.approx([0.704, 0.751], rel=0.02)
    assert reward.mean() == pytest.approx(0.0813, rel=0.15)

"""The ALOHA world. What needs no picture runs on its physics alone, which takes a third of a second an episode."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice

import numpy as np
import pytest

from lapwing.episode import Array
from lapwing.errors import ConfigError, SpecError, WorldError

if find_spec("mujoco") is None or find_spec("gym_aloha") is None:
    pytest.skip("the extra [sim] is not installed", allow_module_level=True)

from lapwing.envs import aloha, aloha_scene, make_world, mujoco_gl, world_spec
from lapwing.envs.aloha import Aloha
from lapwing.envs.aloha_physics import GOAL_STEPS, Physics
from lapwing.envs.aloha_plan import Planner
from lapwing.envs.aloha_scene import GRIPPERS, HOME, Task
from lapwing.envs.aloha_script import MIXED, Style, draw_style, shake, write_script

TASKS: tuple[Task, ...] = ("transfer", "insertion")


@pytest.fixture(scope="module")
def transfer() -> Iterator[Aloha]:
    world = Aloha("transfer", 84)
    yield world
    world.close()


@pytest.fixture(scope="module")
def insertion() -> Iterator[Aloha]:
    world = Aloha("insertion", 84)
    yield world
    world.close()


@pytest.fixture(scope="module")
def physics() -> dict[Task, Physics]:
    return {task: Physics(task) for task in TASKS}


@pytest.fixture(scope="module")
def planners() -> dict[Task, Planner]:
    return {task: Planner(task) for task in TASKS}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds that draw nothing, for tests about what happens."""
    monkeypatch.setattr(Aloha, "_draw", lambda self, camera: np.zeros((1, 1, 3), np.uint8))


def style_of(task: Task, kind: str, seed: int) -> Style:
    return next(
        style
        for style in (draw_style(task, "mixed", np.random.default_rng((seed, draw))) for draw in range(1000))
        if style.kind == kind
    )


def attempt(physics: Physics, planner: Planner, task: Task, style: Style, seed: int) -> bool:
    """Do one script without eyes; whether it reached the strict goal."""
    physics.reset(seed)
    for action in planner.follow(physics.data.qpos, write_script(task, physics.places(), style)):
        physics.advance(action)
        if physics.success:
            return True
    return False


def colour(frame: Array, channel: int) -> int:
    """Pixels where one colour channel stands out."""
    others = np.delete(frame, channel, axis=2).max(2).astype(int)
    return int((frame[..., channel] > others + 60).sum())


def test_spec_has_fourteen_axes_with_the_models_limits(transfer: Aloha) -> None:
    spec = transfer.spec
    assert spec.state == spec.action
    assert spec.rate_hz == 50
    assert [axis.name for axis in spec.action[:7]] == [
        "left_waist", "left_shoulder", "left_elbow", "left_forearm_roll", "left_wrist_angle", "left_wrist_rotate",
        "left_gripper",
    ]  # fmt: skip
    assert [axis.name for axis in spec.action[7:]] == [axis.name.replace("left", "right") for axis in spec.action[:7]]
    shoulder, gripper = spec.action[8], spec.action[13]
    assert (shoulder.unit, shoulder.kind, shoulder.low, shoulder.high) == ("rad", "arm", -1.85005, 1.25664)
    assert (gripper.kind, gripper.low, gripper.high) == ("gripper", 0.0, 1.0)
    assert [(camera.name, camera.height, camera.width) for camera in spec.cameras] == [
        ("left", 84, 84), ("right", 84, 84), ("global", 84, 84),
    ]  # fmt: skip


def test_spec_without_a_world_is_the_worlds_spec(transfer: Aloha, insertion: Aloha) -> None:
    assert world_spec("aloha") == aloha.spec("transfer") == transfer.spec
    assert world_spec("aloha-insertion") == insertion.spec
    assert world_spec("aloha", size=32).cameras[0].height == 32


def test_a_seed_starts_the_same_episode_in_every_world(transfer: Aloha) -> None:
    other = Aloha("transfer", 84)
    first, second = transfer.reset(7), other.reset(7)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 14))
    for action in actions:  # two worlds in one process, step by step beside each other
        first, second = transfer.step(action)[0], other.step(action)[0]
    other.close()
    assert (first.state == second.state).all()
    assert all((first.images[name] == second.images[name]).all() for name in aloha.CAMERAS)
    again = transfer.reset(7)
    for action in actions:
        again = transfer.step(action)[0]
    assert (again.state == first.state).all()
    assert (again.images["global"] == first.images["global"]).all()


def test_seeds_differ_in_the_images_alone(transfer: Aloha) -> None:
    one, other = transfer.reset(1), transfer.reset(2)
    assert (one.state == other.state).all()
    assert (one.images["global"] != other.images["global"]).any()
    np.testing.assert_allclose(one.state, HOME, atol=1e-6)


@pytest.mark.parametrize("size", [16, 84, 700])
def test_cameras_draw_at_any_size(size: int) -> None:
    world = Aloha("transfer", size)
    images = world.reset(0).images
    world.close()
    assert list(images) == ["left", "right", "global"]
    for frame in images.values():
        assert frame.shape == (size, size, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 5


def test_things_are_in_sight_at_reset(transfer: Aloha, insertion: Aloha) -> None:
    for seed in range(4):
        assert colour(transfer.reset(seed).images["global"], 0) >= 16
        frame = insertion.reset(seed).images["global"]
        assert colour(frame, 0) >= 16  # the peg
        assert colour(frame, 2) >= 40  # the socket


def test_wrist_camera_sees_what_its_hand_fetches(transfer: Aloha, planners: dict[Task, Planner]) -> None:
    transfer.physics.reset(3)
    style = style_of("transfer", "clean", 0)
    script = write_script("transfer", transfer.physics.places(), style)
    actions = planners["transfer"].follow(transfer.physics.data.qpos, script)
    transfer.reset(3)
    for action in actions[: style.steps["reach"] + style.steps["descend"]]:
        transfer.physics.advance(action)
    observation, *_ = transfer.step(actions[style.steps["reach"] + style.steps["descend"]])
    assert colour(observation.images["right"], 0) >= 100
    assert colour(observation.images["global"], 0) >= 4


@pytest.mark.parametrize("shape", [(13,), (16,), (1, 14), ()])
def test_an_action_of_the_wrong_shape_is_refused(transfer: Aloha, shape: tuple[int, ...]) -> None:
    transfer.reset(0)
    with pytest.raises(SpecError, match=r"action: got shape .*, expected 14 finite joint targets"):
        transfer.step(np.zeros(shape))


def test_an_action_that_is_not_finite_is_refused(transfer: Aloha) -> None:
    transfer.reset(0)
    with pytest.raises(SpecError, match=r"action: got .*nan.*, expected 14 finite joint targets"):
        transfer.step(np.where(np.arange(14) == 3, np.nan, 0.0))


def test_actions_are_clamped_to_the_limits(transfer: Aloha) -> None:
    low, high = transfer.physics.limits.T
    for far, limit in ((1e6, high), (-1e6, low)):
        transfer.reset(0)
        transfer.step(np.full(14, far))
        beyond = transfer.physics.state
        transfer.reset(0)
        transfer.step(limit)
        assert (transfer.physics.state == beyond).all()


def test_holding_still_stays_and_achieves_nothing(transfer: Aloha) -> None:
    transfer.reset(0)
    places = transfer.physics.places()
    for _ in range(25):
        observation, reward, terminated, truncated, info = transfer.step(HOME)
    assert np.abs(observation.state - HOME).max() < 0.01
    np.testing.assert_allclose(transfer.physics.places(), places, atol=1e-3)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"success": False, "stage_1": False, "stage_2": False, "stage_3": False, "stage_4": False}


def test_an_arm_goes_where_it_is_told(transfer: Aloha) -> None:
    transfer.reset(0)
    target = HOME.copy()
    target[[0, 6, 10, 13]] += (0.3, 0.5, -0.2, 0.8)
    for _ in range(60):
        transfer.physics.advance(target)
    np.testing.assert_allclose(transfer.physics.state, target, atol=0.03)


def test_the_time_limit_truncates(monkeypatch: pytest.MonkeyPatch, transfer: Aloha) -> None:
    assert transfer.max_steps == 400
    monkeypatch.setattr(transfer, "max_steps", 3)
    transfer.reset(0)
    ends = [transfer.step(HOME)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("task", TASKS)
def test_two_scripted_episodes_reach_the_strict_goal(
    physics: dict[Task, Physics], planners: dict[Task, Planner], task: Task
) -> None:
    for seed in (100, 101):
        style = draw_style(task, "expert", np.random.default_rng(seed))
        assert style.kind == "clean"
        assert attempt(physics[task], planners[task], task, style, seed)
        assert physics[task].best_stage == 4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("kind", "stage"), [("missed", 1), ("dropped", 2), ("stopped", 2)])
def test_a_mistake_is_no_success(
    physics: dict[Task, Physics], planners: dict[Task, Planner], task: Task, kind: str, stage: int
) -> None:
    assert not attempt(physics[task], planners[task], task, style_of(task, kind, 5), 5)
    assert physics[task].best_stage <= stage


def test_a_missed_grasp_can_be_mended(physics: dict[Task, Physics], planners: dict[Task, Planner]) -> None:
    assert attempt(physics["transfer"], planners["transfer"], "transfer", style_of("transfer", "retried", 0), 0)


def test_touching_with_both_hands_is_not_holding(physics: dict[Task, Physics], planners: dict[Task, Planner]) -> None:
    """The packaged reward is full as soon as a left finger touches the lifted cube; the strict goal is not."""
    scene = physics["transfer"]
    style = draw_style("transfer", "expert", np.random.default_rng(0))
    scene.reset(0)
    script = write_script("transfer", scene.places(), style)
    shared = sum(style.steps[phase] for phase in ("reach", "descend", "grip", "carry", "approach", "take"))
    actions = planners["transfer"].follow(scene.data.qpos, script)
    for action in (*actions[:shared], *[actions[shared - 1]] * 40):  # the right hand never lets go
        scene.advance(action)
        assert not scene.success
    assert scene.best_stage == 4


def test_the_goal_must_hold_for_ten_steps(physics: dict[Task, Physics], planners: dict[Task, Planner]) -> None:
    scene = physics["transfer"]
    assert attempt(
        scene, planners["transfer"], "transfer", draw_style("transfer", "expert", np.random.default_rng(1)), 1
    )
    assert GOAL_STEPS == 10
    opened = scene.state.astype(np.float64)
    opened[6] = 1.0
    for _ in range(40):
        scene.advance(opened)
    assert not scene.success


@pytest.mark.usefixtures("blind")
def test_demonstrations_depend_on_the_seed_alone() -> None:
    first, second = (next(aloha.demonstrations("transfer", "expert", 16, seed=4)) for _ in range(2))
    other = next(aloha.demonstrations("transfer", "expert", 16, seed=5))
    assert (first.action == second.action).all()
    assert (first.state == second.state).all()
    assert first.meta == second.meta
    assert other.meta["seed"] != first.meta["seed"]


@pytest.mark.usefixtures("blind")
def test_a_demonstration_is_what_its_actions_do(physics: dict[Task, Physics]) -> None:
    episode = next(aloha.demonstrations("transfer", "expert", 16, seed=2))
    assert episode.success
    assert episode.terminated
    assert episode.num_rows == episode.num_steps + 1
    assert 120 < episode.num_steps < 280
    assert episode.reward.sum() == episode.reward[-1] == 1.0
    assert episode.action.dtype == episode.state.dtype == np.float32
    assert (episode.meta["kind"], episode.meta["stage"]) == ("clean", 4)
    assert ((episode.action >= physics["transfer"].limits[:, 0]) & (episode.action <= 3.2)).all()
    # Commanded, not measured: the cube keeps the closed fingers apart.
    assert (np.abs(episode.action - episode.state[:-1]).max(0)[GRIPPERS] > 0.3).all()

    scene = physics["transfer"]
    scene.reset(int(episode.meta["seed"]))
    for step, action in enumerate(episode.action):
        assert not scene.success
        assert (scene.state == episode.state[step]).all()
        scene.advance(action)
    assert scene.success
    assert (scene.state == episode.state[-1]).all()


def test_recorded_frames_are_those_of_the_steps(transfer: Aloha) -> None:
    actions = (HOME + np.linspace(0, 0.3, 6)[:, None]).astype(np.float32)
    episode = aloha._record(transfer, 11, actions, "clean")
    assert (episode.num_steps, episode.num_rows, episode.terminated, episode.success) == (6, 7, False, False)
    assert {name: frames.shape for name, frames in episode.images.items()} == dict.fromkeys(
        aloha.CAMERAS, (7, 84, 84, 3)
    )
    observation = transfer.reset(11)
    for row in range(7):
        for name, frames in episode.images.items():
            assert (observation.images[name] == frames[row]).all()
        if row < 6:
            observation, *_ = transfer.step(actions[row])


@pytest.mark.usefixtures("blind")
def test_mixed_demonstrations_keep_their_failures_and_say_so() -> None:
    episodes = list(islice(aloha.demonstrations("transfer", "mixed", 16, seed=0), 9))
    kinds = {str(episode.meta["kind"]) for episode in episodes}
    assert len(kinds & set(MIXED)) == len(kinds) >= 3
    assert {episode.success for episode in episodes} == {True, False}
    for episode in episodes:
        assert episode.reward.sum() == float(episode.terminated) == float(episode.success)
        assert not (episode.meta["kind"] in ("missed", "dropped", "stopped") and episode.success)
        assert not (episode.success and episode.meta["stage"] != 4)


def test_shaking_comes_back_and_leaves_the_grippers() -> None:
    actions = np.tile(HOME, (200, 1))
    shaken = shake(actions, np.random.default_rng(0))
    assert 0.02 < np.abs(shaken - actions).max() < 0.5
    assert (shaken[:, GRIPPERS] == actions[:, GRIPPERS]).all()
    np.testing.assert_allclose(shaken[[0, -1]], actions[[0, -1]])


def test_unknown_task_and_tiny_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="aloha: task 'juggle', expected one of transfer, insertion"):
        Physics("juggle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="size: got 8, expected at least 16"):
        Aloha("transfer", 8)
    with pytest.raises(ConfigError, match="size: got 0, expected at least 16"):
        aloha.spec("transfer", 0)


def test_several_worlds_step_as_a_batch() -> None:
    worlds = make_world("aloha", num=2, size=16)
    observation = worlds.reset([0, 1])
    assert observation.images["global"].shape == (2, 16, 16, 3)
    observation, reward, _, _, info = worlds.step(np.stack([HOME, HOME]))
    worlds.close()
    assert observation.state.shape == (2, 14)
    assert (reward == 0).all()
    assert info["success"].tolist() == [False, False]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aloha_scene, "find_spec", lambda name: None)
    with pytest.raises(WorldError, match=r"gym-aloha is not installed; `pip install -e '\.\[sim\]'` in the clone"):
        aloha_scene.planning_scene("transfer")
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(WorldError, match=r"mujoco is not installed; `pip install -e '\.\[sim\]'` in the clone"):
        mujoco_gl._import_mujoco()


def test_a_missing_graphics_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(mujoco_gl, "_loads", lambda library: False)
    monkeypatch.setenv("MUJOCO_GL", "")
    mujoco_gl._import_mujoco()  # what is not drawn goes without
    with pytest.raises(WorldError, match=r"neither EGL nor OSMesa .* `apt-get install libegl1 .*libosmesa6"):
        Aloha("transfer", 16)


@pytest.mark.parametrize(
    ("here", "chosen"), [({"libEGL.so.1", "libOSMesa.so.8"}, "egl"), ({"libOSMesa.so.6"}, "osmesa")]
)
def test_egl_is_chosen_before_osmesa(monkeypatch: pytest.MonkeyPatch, here: set[str], chosen: str) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(mujoco_gl, "_loads", lambda library: library in here)
    monkeypatch.setenv("MUJOCO_GL", "")
    mujoco_gl._choose_backend()
    assert os.environ["MUJOCO_GL"] == chosen
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    mujoco_gl._choose_backend()
    assert os.environ["MUJOCO_GL"] == "glfw"


def test_a_library_that_does_not_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def broken(name: str, *args: object, **options: object) -> object:
        if name == "mujoco":
            raise AttributeError("'NoneType' object has no attribute 'glGetError'")
        return importing(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(WorldError, match=r"MuJoCo does not start with MUJOCO_GL=.*glGetError.*apt-get install"):
        mujoco_gl._import_mujoco()


def test_a_context_that_does_not_open_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise ImportError("Cannot initialize a EGL device display")

    monkeypatch.setattr(mujoco_gl.mujoco, "Renderer", refuse)
    with pytest.raises(WorldError, match=r"cannot draw here \(Cannot initialize.*apt-get install libegl1"):
        Aloha("transfer", 16)


def test_a_world_left_open_ends_quietly() -> None:
    program = "from lapwing.envs import make_world; w = make_world('aloha', size=16); w.reset([0])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_torchvision_can_be_imported_after_sampling() -> None:
    """Two LLVMs in one process, Mesa's and triton's, crash it in the wrong order."""
    program = (
        "from lapwing.envs import sample_world; "
        "print(next(sample_world('aloha', quality='expert', size=16, seed=0)).num_steps); "
        "import torchvision"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if "WorldError" in done.stderr:
        pytest.skip("no OpenGL here")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "episodes"), [("transfer", 20), ("insertion", 10)])
def test_scripts_succeed_nearly_always(
    physics: dict[Task, Physics], planners: dict[Task, Planner], task: Task, episodes: int
) -> None:
    done = [
        attempt(physics[task], planners[task], task, draw_style(task, "expert", np.random.default_rng(seed)), seed)
        for seed in range(episodes)
    ]
    assert sum(done) >= 0.95 * episodes

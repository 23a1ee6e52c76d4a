"""Training: from a recording to checkpoints, on one process or many, in one go or resumed."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lapwing.agent import explores
from lapwing.agents import ALGORITHMS
from lapwing.errors import ConfigError, LapwingError
from lapwing.run.checkpoint import link_checkpoint, prune_checkpoints, save_checkpoint, step_name
from lapwing.run.device import peak_memory_gb, pick_device
from lapwing.run.directory import expect_free, held, write_json
from lapwing.run.log import MeanMetrics, RunLog
from lapwing.run.options import LAST, TrainOptions
from lapwing.run.prefetch import Direct, Prefetch
from lapwing.run.ranks import connect, gather_rng, read_ranks, wait_for_all
from lapwing.run.session import OpenSource, Session, open_session
from lapwing.run.training_data import open_training_data

__all__ = ["TrainOptions", "train"]

EPISODES, BUFFERS = "episodes.jsonl", "buffers"  # of a run that collects
_ONE_PRESS_S = 1.0  # signals this close count as one: `timeout` sends its own twice
_Q_OUTSIDE = 0.1  # share of values outside the range of returns worth a warning; sound runs pass through 0.07


def train(
    data: Path,
    out: Path,
    algorithm: str,
    config: Any,
    options: TrainOptions,
    resume: bool = False,
    watch: Callable[[], None] | None = None,
) -> Path:
    """Train `algorithm` on the recording at `data` and return the run directory `out`: `train_on` of its episodes."""
    return train_on(
        lambda progress: open_training_data(data, options, config.scaling, progress),
        out,
        algorithm,
        config,
        options,
        resume,
        watch,
    )


def train_on(
    open_source: OpenSource,
    out: Path,
    algorithm: str,
    config: Any,
    options: TrainOptions,
    resume: bool = False,
    watch: Callable[[], None] | None = None,
    further: Mapping[str, Any] | None = None,
) -> Path:
    """Train `algorithm` on a source of batches and return the run directory `out`.

    With `resume` the run at `out` goes on from its last checkpoint, to the same parameters bit by bit as if it had
    not been interrupted (on a GPU as far as its kernels repeat themselves, and not where a world was amid an episode).
    `watch` is called by the first process after each row of progress.csv and each checkpoint. `further`: settings of
    the source, plain JSON, that are written down and that a resumed run must share. Ctrl-C and SIGTERM save a
    checkpoint and raise KeyboardInterrupt. Raises a LapwingError, before anything is written, when the data or a
    setting does not fit.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"algorithm {algorithm!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    ranks = read_ranks()
    if ranks.many and options.patience is not None:
        raise ConfigError("patience: one process alone knows when to stop, got several; set --patience None")
    if ranks.is_first and not resume:
        expect_free(out, can_resume=True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device, ranks.local_rank)
    connect(ranks, device)
    with ExitStack() as stack:
        if ranks.is_first and resume and out.is_dir():
            stack.enter_context(held(out))
        session = open_session(open_source, out, algorithm, config, options, resume, ranks, device, further or {})
        if ranks.is_first and not resume:
            stack.enter_context(held(out))
        _Loop(session, watch).run()
        wait_for_all(ranks)
    return out


class _Loop:
    """The steps of a session, and what rank 0 logs, judges and saves between them."""

    def __init__(self, session: Session, watch: Callable[[], None] | None) -> None:
        self._session = session
        self._watch = watch or (lambda: None)
        self._means = MeanMetrics()
        self._saved_step = session.state.step
        self._q_was_outside = False
        self._clock = time.perf_counter()
        self._interval = _Interval(session.state.step)

    def run(self) -> None:
        session, state = self._session, self._session.state
        with (
            self._open_log() as log,
            _interrupts(session.ranks.many) as interrupted,
            self._collecting(log, interrupted.is_set),
            self._drawn() as batches,
        ):
            self._interval.restart(state.step, batches.waited)
            while state.step < session.options.steps and not interrupted.is_set() and not self._is_settled():
                if session.source.collector is not None:
                    session.source.collector.advance(state.step)
                    if interrupted.is_set():
                        break
                self._means.add(session.agent.update(next(batches).to(session.device)))
                state.step += 1
                if log is not None:
                    self._report(log, batches)
                if self._due(session.options.eval_every) or self._due(session.options.save_every):
                    self._save()
                    self._interval.restart(state.step, batches.waited)
            if self._saved_step < state.step:
                self._save()
            elif session.source.collector is not None:
                session.source.collector.save(session.out / BUFFERS)  # what has come since
            if log is not None and self._is_settled():
                log.say(f"stopped at step {state.step}: nothing better since step {state.best_step} (--patience)")
        if interrupted.is_set():
            raise KeyboardInterrupt(f"{session.out}: saved step {state.step}; go on with --resume")

    def _open_log(self) -> AbstractContextManager[RunLog | None]:
        session = self._session
        if not session.ranks.is_first:
            return nullcontext()
        log = RunLog(session.out, session.state.step, session.options.steps)
        for note in session.source.notes:
            log.say(f"note: {note}")
        return log

    def _drawn(self) -> Prefetch | Direct:
        session = self._session
        if session.source.collector is not None and session.source.collector.in_step:
            return Direct(session.batches())
        return Prefetch(session.batches(), pin=session.device.type == "cuda")

    @contextmanager
    def _collecting(self, log: RunLog | None, stop: Callable[[], bool]) -> Iterator[None]:
        """Actors at work, where the source has any. What they brought is saved when something goes wrong, too."""
        session, collector = self._session, self._session.source.collector
        if collector is None or log is None:
            yield
            return
        agent = session.agent
        assert explores(agent)  # what collects does
        try:
            collector.start(agent, session.device, session.out / EPISODES, log.say, stop)
            yield
        except LapwingError:
            with suppress(LapwingError, OSError):  # the first error is the one to tell
                collector.save(session.out / BUFFERS)
            raise
        finally:
            collector.close()

    def _is_settled(self) -> bool:
        """Whether the best checkpoint has not been bettered for long enough."""
        options, state = self._session.options, self._session.state
        if options.patience is None or state.best_step is None:
            return False
        return state.step - state.best_step >= options.patience * options.eval_every

    def _due(self, every: int) -> bool:
        step = self._session.state.step
        return step % every == 0 or step == self._session.options.steps

    def _report(self, log: RunLog, batches: Prefetch | Direct) -> None:
        """Show progress and, when due, write a row and judge."""
        session, step = self._session, self._session.state.step
        log.advance()
        judging = self._due(session.options.eval_every)
        if not judging and step % session.options.log_every:
            return
        means = self._means.take()
        timing = self._interval.restart(step, batches.waited)
        timing["memory_gb"] = peak_memory_gb(session.device)
        warning = self._q_warning(log, means)
        log.status(f"waiting {timing['waiting_share']:.0%}, {timing['memory_gb']:.1f} GB{warning}")
        measured = self._judge(log) if judging else {}
        collected = {} if session.source.collector is None else session.source.collector.columns()
        log.write(step, {"seconds": self._seconds(), **timing, **means, **collected, **measured})
        self._watch()
        _expect_finite(means, step, session.out)
        self._stop_if_diverged(means)

    def _q_warning(self, log: RunLog, means: Mapping[str, float]) -> str:
        """A word for the bar while Q is outside the range of returns, and a line each time it gets there.

        The first interval shows the initial weights more than what was learned.
        """
        outside = means.get("q_out_of_range", 0.0)
        settled = self._session.state.step > self._session.options.log_every
        was_outside, self._q_was_outside = self._q_was_outside, settled and outside > _Q_OUTSIDE
        if not self._q_was_outside:
            return ""
        if not was_outside:
            low, high = self._session.facts.returns
            log.say(
                f"step {self._session.state.step}: warning: Q left the range of values for {outside:.0%} of the "
                f"samples ({means['q_min']:.3g} to {means['q_max']:.3g}; returns {low:.3g} to {high:.3g}); usual early "
                "on, look again if it stays"
            )
        return f", Q outside {outside:.0%}"

    def _stop_if_diverged(self, means: Mapping[str, float]) -> None:
        """Save, and raise ConfigError, where Q was far outside the range of returns in every step of an interval.

        The first interval shows the initial weights more than what was learned.
        """
        session, step = self._session, self._session.state.step
        if means.get("q_diverged", 0.0) < 1 or step <= session.options.log_every:
            return
        if not session.ranks.many:  # else the others would have to save with this one, and know nothing of it
            self._save()
        low, high = session.facts.returns
        raise ConfigError(
            f"{session.out}: Q is {means['q_mean']:.3g} on average at step {step}, expected about the returns in the "
            f"data ({low:.3g} to {high:.3g}): training diverged; step {self._saved_step} is saved; start another run "
            "with imitation 1, clip_targets or a lower lr (no stop_when_diverged: go on all the same)"
        )

    def _judge(self, log: RunLog) -> dict[str, float]:
        """Measure on the held-out episodes; remember whether this is the best step so far."""
        session, state = self._session, self._session.state
        result = session.judge(session.options.eval_samples)
        if result is None:
            return {}
        if session.best_metric == LAST:
            write_json(session.out / "held_out.json", {"step": state.step, **result.record})
            return dict(result.row)
        value = result.row[session.best_metric]
        if value < state.best_value:
            state.best_step, state.best_value = state.step, value
            write_json(session.out / "held_out.json", {"step": state.step, **result.record})
        elif state.step == session.options.steps and state.best_step is None:
            log.say(f"{session.best_metric} was never a number: `best` is the last checkpoint")
        return dict(result.row)

    def _save(self) -> None:
        """Write a checkpoint, let `last` point to it, and `best` where it belongs. Every rank comes here."""
        session, state = self._session, self._session.state
        generators = gather_rng(session.ranks, session.device)
        self._saved_step = state.step
        if not session.ranks.is_first:
            return
        state.seconds, self._clock = self._seconds(), time.perf_counter()
        save_checkpoint(
            session.out / "checkpoints" / step_name(state.step),
            algorithm=session.algorithm,
            config=session.config,
            facts=session.facts,
            agent=session.agent,
            spec=session.source.spec,
            normalizer=session.source.normalizer,
            train_state={
                "agent": session.agent.state_dict(),
                "rng": generators,
                "state": asdict(state),
                "split": session.source.parts(),
            },
        )
        if session.source.collector is not None:
            session.source.collector.save(session.out / BUFFERS)
        link_checkpoint(session.out, "last", state.step)
        link_checkpoint(session.out, "best", state.step if state.best_step is None else state.best_step)
        prune_checkpoints(session.out, session.options.save_every)
        self._watch()

    def _seconds(self) -> float:
        return self._session.state.seconds + time.perf_counter() - self._clock


class _Interval:
    """Speed and waiting since the last look."""

    def __init__(self, step: int) -> None:
        self._begin = (step, time.perf_counter(), 0.0)

    def restart(self, step: int, waited: float) -> dict[str, float]:
        """Begin anew; returns steps_per_s and waiting_share of the interval that ended."""
        first_step, start, waited_before = self._begin
        self._begin = (step, time.perf_counter(), waited)
        seconds = self._begin[1] - start
        return {"steps_per_s": (step - first_step) / seconds, "waiting_share": (waited - waited_before) / seconds}


def _expect_finite(means: Mapping[str, float], step: int, run: Path) -> None:
    for name, value in means.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"{run}: {name} is {value} at step {step}, expected a finite number: training diverged; "
                "set lower learning rates, or scale very large rewards down, and start another run"
            )


@contextmanager
def _interrupts(many: bool) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the step in progress is finished; a later one stops at once.

    With many processes, and outside the main thread, they do what they always do.
    """
    pressed = threading.Event()
    first = 0.0
    if many or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def press(number: int, _: Any) -> None:
        nonlocal first
        if not pressed.is_set():
            pressed.set()
            first = time.monotonic()
        elif time.monotonic() - first > _ONE_PRESS_S:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, press)
    try:
        yield pressed
    finally:
        restore()

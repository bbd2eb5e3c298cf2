"""What a training would be: resolved, checked and counted, before anything is written or allocated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.base.config import digest
from pipeline.base.errors import ConfigError, RunError
from pipeline.store.reader import Store
from trainer.arms import arm_name
from trainer.cache import fingerprints, missing_arrays
from trainer.config import RunConfig, signature
from trainer.model import ModuleCount, RetrievalModel, build_model, parameter_inventory
from trainer.optim import build_optimizer
from trainer.resolve import resolve
from trainer.run import Run, open_run
from trainer.schedules import update_multiplier


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One training, as the command line asks for it.

    Attributes
    ----------
    config : resolved or not (it is resolved again); everything the result depends on
    store : folder of the store
    out : folder that the run's folder is made in
    overwrite : delete an existing run of this signature first (default: go on with it)
    init : folder of a finished run whose encoders and heads this one starts from
    copied_from : folder that ``store`` is a passing copy of, on a node's own disk; the run's record
        names it instead
    memory : bytes that it may use of what is free, where others run beside it (default: all)
    """

    config: RunConfig
    store: Path
    out: Path = Path("runs")
    device: str = "auto"
    overwrite: bool = False
    deterministic: bool = False
    compiled: bool = False
    tensorboard: bool = False
    init: Path | None = None
    copied_from: Path | None = None
    memory: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a request comes to, before anything is trained (also for ``--dry-run``).

    ``modules``: parameters of every part of the model, the last row their total. ``missing``: arrays
    that it reads and the store does not have yet.
    """

    request: RunRequest
    store: Store
    config: RunConfig
    arm: str
    signature: str
    folder: Path
    reads: tuple[str, ...]
    fingerprints: dict[str, str]
    modules: list[ModuleCount]
    leaks: bool
    missing: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.modules[-1].total

    @property
    def trainable(self) -> int:
        """Those that are trained."""
        return self.modules[-1].trainable


def plan_run(request: RunRequest, init: str | None = None) -> Plan:
    """Resolve and check a request against its store, allocating no model.

    ``init``: signature of a run that does not exist yet, to start from (recipes).
    """
    if request.init is not None:
        init = _finished_run(request.init).signature
    return Planner(Store.open(request.store)).plan(request, init)


class Planner:
    """Plans many runs on one store; a model that several of them have is made once.

    Parameters
    ----------
    ahead : whether runs may read arrays that the store does not have yet (:attr:`Plan.missing`)
    """

    def __init__(self, store: Store, *, ahead: bool = False) -> None:
        self.store, self.ahead = store, ahead
        self._models: dict[str, tuple[RetrievalModel, list[ModuleCount]]] = {}

    def plan(self, request: RunRequest, init: str | None = None) -> Plan:
        """What a request comes to; ``init``: signature of the run that it starts from."""
        config = resolve(request.config)
        model, modules = self._model(config)
        missing = missing_arrays(self.store, model.reads()) if self.ahead else []
        reads = fingerprints(self.store, model.reads(), planned=missing)
        sign = signature(config, reads, init)
        arm = arm_name(config.pairs)
        if config.control.name != "real":
            arm = f"{arm}-{config.control.name}"
        return Plan(
            request=request,
            store=self.store,
            config=config,
            arm=arm,
            signature=sign,
            folder=request.out / f"{arm}-{sign}",
            reads=model.reads(),
            fingerprints=reads,
            modules=modules,
            leaks=any(m.leaks for m in model.every_mechanism()),
            missing=tuple(missing),
        )

    def _model(self, config: RunConfig) -> tuple[RetrievalModel, list[ModuleCount]]:
        """A model without memory: what neither seed nor evaluation changes is made once."""
        key = digest(dataclasses.replace(config, seed=0, evaluation=None))  # type: ignore[arg-type]
        if key not in self._models:
            model = _buildable(config)
            self._models[key] = model, parameter_inventory(model)
        return self._models[key]


def _finished_run(path: Path) -> Run:
    """A run to start from: its weights must not change any more."""
    run = open_run(path)
    if not run.finished:
        raise RunError(
            f"--init {path}: that run is not finished ({run.record['status']}); repeat its "
            "xmodal-train command first"
        )
    return run


def _buildable(config: RunConfig) -> RetrievalModel:
    """The model without memory; what torch cannot build is found here, before a run folder is made."""
    try:
        model = build_model(config, "meta")
        build_optimizer(model, config.optimizer)
        for update in (1, 2, config.budget.updates):
            update_multiplier(config.schedule, update, config.budget.updates)
    except (
        ArithmeticError,
        AssertionError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"no model can be made of this configuration: {reason}") from None
    return model

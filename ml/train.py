"""Training of SNeRT: the loop, early stopping, curves and the checkpoint folder; also `python -m ml.train SPEC.json`.

Belongs here: what a training run is given and writes, optimiser and schedule. Does not belong here: batches
(`ml.batches`), losses (`ml.losses`), validation's measures (`ml.validation`). Needs only torch, NumPy, SciPy,
scikit-learn, PyArrow, Numba, pydantic and safetensors.

A run is a function of its inputs and seed: on a CPU with the same number of threads the same spec gives the same bytes,
also when the run was killed on the way and went on from a stored state (`ml.resume`): batches and dropout depend on
(seed, step) alone, the learning rate on the step.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ml.asof import AsOf, AsOfPaths
from ml.batches import Batch, Batches, dropout_seed
from ml.errors import DataError, NewsrecError, UsageError
from ml.features import FittedFeatures
from ml.losses import info_nce, log_det
from ml.metrics import average_cosine, relative_effective_rank
from ml.models.snert import Snert
from ml.recipes import Recipe
from ml.resume import State, States
from ml.sessions import exclusion_mask, read_sessions
from ml.snert import ArticleTables, SnertNet, save_weights
from ml.strangers import one_line, read_model, reading
from ml.synthetic import SYNTHETIC, marked
from ml.validation import Validation

Progress = Callable[[str], None]
_AHEAD = 2
_REPORT_EVERY = 50
_SPECTRUM_ROWS = 4096


class TrainSpec(BaseModel):
    """What one training run is given. `sessions` are ranges into the interactions whose digest is `sessions_digest`;
    `train_end` (ms) is where training targets end: the exclusion mask does not look past it.

    With the folder `states`, the training stores its state every `states_every` steps and at its end, and goes on from
    the newest one that is there; `states_key` says what it trains on (the recipe key), beside the spec's own fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asof: AsOfPaths
    sessions: Path
    sessions_digest: str
    recipe: Recipe
    seed: int
    out: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    train_end: int
    states: Path | None = None
    states_key: str = ""
    states_every: int = Field(default=100, ge=1)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run found: `metrics` as in metrics.json, `curves` as in curves.json, the folder, and wall-clock seconds of
    a mean step by part (measured, hence in no file)."""

    metrics: dict[str, float | int | str]
    curves: list[dict[str, float]]
    out: Path
    seconds: dict[str, float]


@dataclass
class _Best:
    """Early stopping: the best validation so far (Recall@20, then NDCG@20) and its weights; without validation cases
    the last weights."""

    step: int = 0
    score: tuple[float, float] = (-math.inf, -math.inf)
    metrics: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    bad: int = 0

    def offer(self, step: int, metrics: dict[str, float], net: SnertNet) -> bool:
        """Keep the weights if better; True while there was an improvement."""
        score = tuple(-math.inf if math.isnan(metrics[m]) else metrics[m] for m in ("recall@20", "ndcg@20"))
        unmeasured = math.isnan(metrics["recall@20"])
        better = not self.weights or unmeasured or score > self.score
        if better:
            self.step, self.score, self.metrics, self.bad = step, score, metrics, 0  # type: ignore[assignment]
            self.weights = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        else:
            self.bad += 1
        return better


def train(spec: TrainSpec, progress: Progress = lambda _: None) -> TrainResult:
    """Train, write the checkpoint folder `spec.out`, and say how it went.

    The folder holds model.safetensors, features.safetensors, features.json, recipe.json, curves.json and metrics.json.
    Raises DataError where there is nothing to train on or the loss is not finite, UsageError for a missing device.
    """
    device = choose_device(spec.device)
    asof = AsOf.open(spec.asof)
    sessions = read_sessions(spec.sessions, spec.sessions_digest)
    if len(sessions) and sessions.target.max() >= len(asof.clicks):
        raise DataError(f"{spec.sessions}: a target lies beyond the interactions: rebuild session_splits")
    targets, validation = (sessions.target[sessions.split == name] for name in ("train", "validation"))
    # An article that appears within the minute of its click has no age and no clicks, which no negative ever has.
    targets = targets[asof.clicks.article[targets] < asof.available(asof.clicks.time[targets])]
    if len(targets) == 0:
        raise DataError(f"{spec.sessions}: no training targets: choose a later as-of day or a longer training window")
    recipe = spec.recipe
    fitted = FittedFeatures.fit(recipe, asof, targets)
    batches = Batches(asof, fitted, recipe, targets, exclusion_mask(asof.clicks, targets, spec.train_end), spec.seed)
    chosen = Validation.choose(asof, validation, recipe.validation_cases, spec.seed)
    if len(chosen.cases) == 0:
        progress("no validation targets: training goes to its end and keeps the last weights")
    with _reproducible(device):
        torch.manual_seed(dropout_seed(spec.seed, -1 % 2**32))
        run = Run(batches, chosen, SnertNet(fitted.spec, recipe).to(device), device, progress)
        best, curves = run.fit(_Keeper.of(spec, device, len(targets)))
    spec.out.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, float | int | str] = {
        "steps": run.steps_done,
        "best_step": best.step,
        "train_targets": len(targets),
        "validation_cases": len(chosen.cases),
        "validation_impressions": len(chosen.shown),
        "families": " ".join(fitted.spec.families),
        **{name: value for name, value in best.metrics.items() if not math.isnan(value)},
        **({SYNTHETIC: asof.impressions.synthetic} if asof.impressions.synthetic else {}),
    }
    save_weights(run.net, spec.out / "model.safetensors")
    fitted.save(spec.out)
    _write_json(recipe.model_dump(mode="json"), spec.out / "recipe.json")
    _write_json(curves, spec.out / "curves.json")
    _write_json(metrics, spec.out / "metrics.json")
    own_steps = max(run.steps_done - run.first, 1)
    return TrainResult(metrics, curves, spec.out, {k: v / own_steps for k, v in run.seconds.items()})


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Where the states of a training are kept, if at all, and how often."""

    states: States | None
    every: int

    @classmethod
    def of(cls, spec: TrainSpec, device: str, targets: int) -> "_Keeper":
        """States are those of this training only: of its key, recipe, seed and data, on this kind of machine."""
        if spec.states is None:
            return cls(None, spec.states_every)
        identity = {
            "key": spec.states_key,
            "recipe": spec.recipe.model_dump(mode="json"),
            "seed": spec.seed,
            "sessions": spec.sessions_digest,
            "train_end": spec.train_end,
            "targets": targets,
            "device": device,
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if device == "cpu" else 0,
        }
        return cls(States(spec.states, identity), spec.states_every)


class Run:
    """The loop over steps of one network on one device."""

    def __init__(
        self, batches: Batches, validation: Validation, net: SnertNet, device: str, progress: Progress
    ) -> None:
        self.batches, self.validation, self.net, self.device, self.progress = batches, validation, net, device, progress
        self.recipe = batches.recipe
        self.tables = ArticleTables.build(batches.asof, batches.fitted, device)
        epochs = self.recipe.epochs * math.ceil(len(batches) / self.recipe.batch)
        self.steps = min(self.recipe.steps, epochs)
        self.optimiser = torch.optim.AdamW(_groups(net, self.recipe.weight_decay), lr=self.recipe.lr)
        self.seconds = {"wait for data": 0.0, "forward": 0.0, "backward": 0.0}
        self.steps_done = self.first = 0

    def fit(self, keeper: _Keeper) -> tuple[_Best, list[dict[str, float]]]:
        """Train to the end or until validation stops improving; the network ends with the best weights."""
        best, curves = self._resume(keeper)
        started, over = time.monotonic(), self._over(best)
        for step, batch in self.ahead(self.steps if over else self.first, self.steps):
            point = self.step(step, batch)
            done = self.steps_done = step + 1
            if done % self.recipe.eval_every == 0 or done == self.steps:
                measured = self.validation.measure(self.batches.asof, self._model())
                point |= {name: value for name, value in measured.items() if not math.isnan(value)}
                best.offer(done, measured, self.net)
            if "recall@20" in point or done % _REPORT_EVERY == 0 or done == 1:
                curves.append({"step": float(done), **point})
                self.progress(self._message(done, point, time.monotonic() - started))
            over = self._over(best)
            if keeper.states is not None and (over or done % keeper.every == 0):
                keeper.states.save(self._state(best, curves))
            if over:
                break
        self.net.load_state_dict(best.weights)
        return best, curves

    def _over(self, best: _Best) -> bool:
        return self.steps_done == self.steps or best.bad >= self.recipe.patience

    def _resume(self, keeper: _Keeper) -> tuple[_Best, list[dict[str, float]]]:
        """Where training stands: at the newest stored state, else at its beginning."""
        best, curves = _Best(), []
        state, said = keeper.states.newest() if keeper.states is not None else (None, [])
        for line in said:
            self.progress(line)
        if keeper.states is not None and state is not None:
            with reading(keeper.states.folder, "remove that folder, then run again"):
                self._require_whole(state)
                self._restore(state, best)
                curves = state.facts["curves"]
            self.progress(f"went on from the state stored after step {state.step} of {self.steps}")
        return best, curves

    def _require_whole(self, state: State) -> None:
        """Raises ValueError unless the state holds, finite, the tensors of this network; best weights, where there are
        any yet; and moments of weights that were trained."""
        shapes = {name: tensor.shape for name, tensor in self.net.state_dict().items()}
        parts = [{f"{part}.{name}": shape for name, shape in shapes.items()} for part in ("net", "best")]
        for number, weight in enumerate(w for group in self.optimiser.param_groups for w in group["params"]):
            moments = {"exp_avg": weight.shape, "exp_avg_sq": weight.shape, "step": torch.Size([])}
            parts.append({f"optimiser.{number}.{moment}": shape for moment, shape in moments.items()})
        wanted = {
            n: s for i, part in enumerate(parts) if i == 0 or part.keys() & state.tensors for n, s in part.items()
        }
        if not 0 < state.step <= self.steps:
            raise ValueError(f"step {state.step} of {self.steps}")
        for name in sorted(wanted.keys() | state.tensors.keys()):
            found = state.tensors.get(name)
            if found is None or wanted.get(name) != found.shape or not torch.isfinite(found).all():
                raise ValueError(f"tensor {one_line(name, 80)} is missing, too many, of another shape or not finite")

    def _state(self, best: _Best, curves: list[dict[str, float]]) -> State:
        """Everything that the steps to come depend on."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.weights.items()}
        moments = self.optimiser.state_dict()["state"]
        tensors |= {f"optimiser.{i}.{name}": t for i, held in moments.items() for name, t in held.items()}
        facts = {
            "schedule": {"steps": self.steps, "warmup": self.recipe.warmup, "lr": self.optimiser.param_groups[0]["lr"]},
            "best": {
                "step": best.step,
                "score": [_unset(v) for v in best.score],
                "metrics": {name: _unset(v) for name, v in best.metrics.items()},
                "bad": best.bad,
            },
            "curves": curves,
        }
        return State(self.steps_done, tensors, facts)

    def _restore(self, state: State, best: _Best) -> None:
        """The reverse of `_state`."""
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "best": {}, "optimiser": {}}
        for name, tensor in state.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.net.load_state_dict(parts["net"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, what = name.partition(".")
            moments.setdefault(int(index), {})[what] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        kept: dict[str, Any] = state.facts["best"]
        best.step, best.bad = kept["step"], kept["bad"]
        first, second = (-math.inf if v is None else v for v in kept["score"])
        best.score = (first, second)
        best.metrics = {name: math.nan if v is None else v for name, v in kept["metrics"].items()}
        best.weights = {name: tensor.to(self.device) for name, tensor in parts["best"].items()}
        self.steps_done = self.first = state.step

    def ahead(self, first: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """Steps from `first` up to `stop` with their batches, made a little ahead in one other thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead = range(first, min(first + _AHEAD, stop))
            waiting: list[Future[Batch]] = [pool.submit(self.batches.make, s) for s in ahead]
            for step in range(first, stop):
                before = time.monotonic()
                batch = waiting.pop(0).result()
                self.seconds["wait for data"] += time.monotonic() - before
                if step + _AHEAD < stop:
                    waiting.append(pool.submit(self.batches.make, step + _AHEAD))
                yield step, batch
            for future in waiting:
                future.cancel()

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """One update; the point of the curves."""
        before = time.monotonic()
        self.net.train()
        torch.manual_seed(dropout_seed(self.batches.seed, step))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * schedule(step, self.steps, self.recipe.warmup)
        bf16 = self.recipe.precision == "bf16" and self.device == "cuda"
        with torch.autocast(device_type=self.device, dtype=torch.bfloat16, enabled=bf16):
            user, articles = self.net(self.tables, batch.history, batch.articles)
        nce, spectrum, distinct = self._losses(batch, user, articles)
        loss = nce + self.recipe.lambda_logdet * spectrum
        middle = time.monotonic()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
        if not (math.isfinite(float(loss.detach())) and math.isfinite(float(norm))):
            raise DataError(
                f"recipe {self.recipe.name!r}: the loss is not finite at step {step + 1} "
                f"(nce {float(nce.detach()):g}, logdet {float(spectrum.detach()):g}): lower lr or raise ridge"
            )
        self.optimiser.step()
        self.seconds["forward"] += middle - before
        self.seconds["backward"] += time.monotonic() - middle
        point = {"loss": float(loss.detach()), "nce": float(nce.detach()), "logdet": float(spectrum.detach())}
        wanted = (step + 1) % self.recipe.eval_every == 0 or step in (0, self.steps - 1)
        return point | (_spectrum(user, distinct) if wanted else {})

    def _losses(self, batch: Batch, user: Tensor, articles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """InfoNCE, the log-determinant term and the vectors of the distinct articles."""
        grid = articles.view(len(user), -1, articles.shape[1])
        valid = torch.from_numpy(batch.valid).to(self.device)
        log_q = None if batch.log_q is None else torch.from_numpy(batch.log_q).to(self.device)
        nce = info_nce(user, grid, valid, self.recipe.temperature, log_q)
        distinct = articles[torch.from_numpy(batch.distinct).to(self.device)]
        return nce, log_det(user, distinct, self.recipe.ridge), distinct

    def _model(self) -> Snert:
        return Snert(self.net, self.batches.fitted, self.recipe, self.device)

    def _message(self, done: int, point: dict[str, float], elapsed: float) -> str:
        own_steps = done - self.first
        left = elapsed / own_steps * (self.steps - done)
        names = {k: k for k in ("loss", "nce", "recall@20", "ndcg@20")}
        names["auc"] = marked("auc", self.batches.asof.impressions.synthetic)
        shown = " ".join(f"{name} {point[k]:.4f}" for k, name in names.items() if k in point)
        parts = ", ".join(f"{name} {1000 * s / own_steps:.0f}" for name, s in self.seconds.items())
        return f"step {done}/{self.steps}: {shown}; {left:.0f} s left at most (ms a step: {parts})"


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` takes CUDA where there is one. Raises UsageError for CUDA that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch finds none: use --device cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0): linear over the first `warmup` share, then cosine to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """The caller's random state is kept; on a CPU only deterministic kernels may run."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(before or device == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _groups(net: SnertNet, weight_decay: float) -> list[dict[str, object]]:
    """Weight matrices decay; biases, norms, embeddings and single vectors do not."""
    tables = {id(m.weight) for m in net.modules() if isinstance(m, torch.nn.Embedding)}
    decay = [p for p in net.parameters() if p.ndim > 1 and id(p) not in tables]
    rest = [p for p in net.parameters() if p.ndim <= 1 or id(p) in tables]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _spectrum(user: Tensor, article: Tensor) -> dict[str, float]:
    """Collapse measures of a batch (Eq. 2.8, A.10)."""
    users, articles = (v.detach().float().cpu().numpy()[:_SPECTRUM_ROWS] for v in (user, article))
    return {
        "erank_user": relative_effective_rank(users),
        "erank_article": relative_effective_rank(articles),
        "cosine_user": average_cosine(users),
        "cosine_article": average_cosine(articles),
    }


def _unset(value: float) -> float | None:
    """A figure as JSON holds it: what is not finite becomes null."""
    return value if math.isfinite(value) else None


def _write_json(value: object, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """`python -m ml.train SPEC.json`: exit code 0 done, 1 failed, 2 bad usage or bad input."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m ml.train SPEC.json    (`newsrec spec` writes one)", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        spec = read_model(TrainSpec, Path(arguments[0]), "`newsrec spec` writes one")
        result = train(spec, progress=lambda line: print(line, file=sys.stderr))
    except (OSError, NewsrecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (UsageError, DataError)) else 1
    print(json.dumps(result.metrics, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

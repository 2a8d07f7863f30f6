"""SNeRT as a model of the registry: a checkpoint folder read back, article and reader vectors, scores.

Belongs here: loading and validating a checkpoint, caching what does not move with time, scoring. Does not belong here:
the network (`ml.snert`), its training (`ml.train`), top lists and files (`ml.predict`).

Scores are exact under any later event: first-layer products are kept by blocks of a fixed number of catalogue rows, so
that neither a longer catalogue nor more content versions change the shape of a computation for earlier rows.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ml.asof import AsOf
from ml.clock import MS_PER_MINUTE
from ml.features import FittedFeatures
from ml.inputs import article_inputs, history_inputs
from ml.log import Cases
from ml.models.base import Model, case_of
from ml.recipes import Recipe
from ml.snert import ArticleTables, SnertNet, load_weights
from ml.strangers import read_model

_BLOCK = 2048
_CHUNK = 8192
_CASES = 1024


@dataclass
class _View:
    """What is kept for one as-of view: the tables, by block the content versions and their first-layer sums, and the
    catalogue's vectors of one minute."""

    asof: AsOf
    tables: ArticleTables
    versions: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    static: dict[int, Tensor] = field(default_factory=dict)
    minute: int | None = None
    catalogue: Tensor | None = None


class Snert(Model):
    """A trained SNeRT. Article vectors are of unit length, a score is the cosine of reader and article."""

    name = "snert"
    trains = True
    embeds = True

    def __init__(self, net: SnertNet, fitted: FittedFeatures, recipe: Recipe, device: str = "cpu") -> None:
        self.net = net.to(device).eval()
        self.fitted = fitted
        self.recipe = recipe
        self.device = device
        self._view: _View | None = None

    @classmethod
    def load(cls, checkpoint: Path, asof: AsOf | None = None, device: str = "cpu") -> "Snert":
        """Read a checkpoint folder written by `ml.train`. With `asof`, its content vectors are checked at once.

        Raises DataError in one line where a file is missing, damaged, not finite or of another shape than recipe.json.
        """
        recipe = read_model(Recipe, checkpoint / "recipe.json", "train again")
        fitted = FittedFeatures.load(checkpoint)
        model = cls(load_weights(fitted.spec, recipe, checkpoint / "model.safetensors"), fitted, recipe, device)
        if asof is not None:
            model._of(asof)
        return model

    def article_vectors(self, asof: AsOf, time_ms: int, rows: np.ndarray) -> np.ndarray:
        """Vectors float32 [n, d] of catalogue `rows` (int [n], all >= 0) as of the minute of `time_ms`."""
        times = np.full(len(rows), time_ms, dtype=np.int64)
        return self._pairs(asof, times, rows).cpu().numpy()

    def catalogue_vectors(self, asof: AsOf, time_ms: int) -> np.ndarray:
        """Vectors float32 [available(time_ms), d] of all articles available at `time_ms`. What does not move with time
        is kept from one call to the next, so that a later minute costs less than `article_vectors` of all."""
        return self._prefix(asof, time_ms).cpu().numpy()

    def user_vectors(self, asof: AsOf, cases: Cases) -> np.ndarray:
        """Vectors float32 [B, d] of the readers of `cases`, each as of its own time."""
        return self._users(asof, cases).cpu().numpy()

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        """Scores float32 [B, available(time_ms)] of all articles available at `time_ms`, the minute of all cases."""
        with torch.inference_mode():
            users = self._users(asof, cases)
            return (users @ self._prefix(asof, time_ms).T).cpu().numpy()

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Scores float32 [V] of `rows[offsets[b]:offsets[b + 1]]` (all known) for case b, as of its own time."""
        owner = case_of(offsets)
        with torch.inference_mode():
            users = self._users(asof, cases)[torch.from_numpy(owner).to(self.device)]
            return (users * self._pairs(asof, cases.time[owner], rows)).sum(1).cpu().numpy()

    def _of(self, asof: AsOf) -> _View:
        if self._view is None or self._view.asof is not asof:
            self._view = _View(asof, ArticleTables.build(asof, self.fitted, self.device))
        return self._view

    @torch.inference_mode()
    def _users(self, asof: AsOf, cases: Cases) -> Tensor:
        tables = self._of(asof).tables
        out = [torch.zeros(0, self.recipe.dim, device=self.device)]
        for start in range(0, len(cases), _CASES):
            part = cases.take(np.arange(start, min(start + _CASES, len(cases))))
            history = history_inputs(asof, self.fitted, part, self.recipe.session_length)
            out.append(self.net.user(self.net.article(tables, history.articles), history))
        return torch.cat(out)

    @torch.inference_mode()
    def _pairs(self, asof: AsOf, time_ms: np.ndarray, rows: np.ndarray) -> Tensor:
        """Vectors of (article, time) pairs, each with its own time."""
        tables = self._of(asof).tables
        out = [torch.zeros(0, self.recipe.dim, device=self.device)]
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            inputs = article_inputs(asof, self.fitted, time_ms[part], rows[part][:, None])
            out.append(self.net.article(tables, inputs))
        return torch.cat(out)

    def _prefix(self, asof: AsOf, time_ms: int) -> Tensor:
        """Vectors of all articles available at `time_ms`, in catalogue order; those of the last minute are kept."""
        view = self._of(asof)
        minute = time_ms // MS_PER_MINUTE
        if view.catalogue is None or view.minute != minute:
            view.catalogue = None  # the old ones are let go before the new ones are made
            view.minute, view.catalogue = minute, self._encoded(asof, time_ms)
        return view.catalogue

    @torch.inference_mode()
    def _encoded(self, asof: AsOf, time_ms: int) -> Tensor:
        time = np.array([time_ms], dtype=np.int64)
        available = int(asof.available(time)[0])
        out = torch.empty(available, self.recipe.dim, device=self.device)
        for start in range(0, available, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, available))
            dynamic = self.fitted.dynamic(asof, time, rows[None])[0]
            static = self._static_block(asof, time, start)[: len(rows)]
            out[rows[0] : rows[-1] + 1] = self.net.article.finish(static, torch.from_numpy(dynamic).to(self.device))
        return out

    def _static_block(self, asof: AsOf, time: np.ndarray, start: int) -> Tensor:
        """First-layer sums of catalogue rows [start, start + block) as of `time`, recomputed where a version changed;
        rows past the catalogue's end are filled with its first article."""
        view = self._of(asof)
        rows = np.arange(start, start + _BLOCK)
        rows[rows >= len(asof.catalogue)] = 0
        versions = {f: asof.content(f).index(time, rows[None])[0] for f in self.fitted.spec.content_dims}
        kept = view.versions.get(start)
        if kept is None or any(not np.array_equal(kept[f], v) for f, v in versions.items()):
            indices = {f: torch.from_numpy(v.astype(np.int64)).to(self.device) for f, v in versions.items()}
            view.static[start] = self.net.article.static(view.tables, torch.from_numpy(rows).to(self.device), indices)
            view.versions[start] = versions
        return view.static[start]

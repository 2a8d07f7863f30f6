"""The SNeRT network: article encoder, interaction encoder, transformer, attention pooling (document 1, Sec. 4.2-4.3).

Belongs here: modules, the tensors that they read, the checkpoint's weights. Does not belong here: losses
(`ml.losses`), the training loop (`ml.train`), scoring for users of the model (`ml.models.snert`).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ml.articles import NUMERIC
from ml.asof import AsOf
from ml.errors import DataError
from ml.features import GAP_EDGES_S, READ_EDGES_S, FeatureSpec, FittedFeatures
from ml.inputs import ArticleInputs, HistoryInputs
from ml.recipes import Perturbation, Recipe
from ml.tensors import Layout, load_tensors

_PREMIUM_DIM = 4


@dataclass(frozen=True, slots=True)
class ArticleTables:
    """What never changes of the articles, on the network's device: `category`, `premium` int64 [A] codes, `numeric`
    float32 [A, 11], `vectors` float32 [V + 1, D] of each content family, of mean square 1 and with a last row of zeros
    for articles without one (so that version -1 finds it)."""

    category: Tensor
    premium: Tensor
    numeric: Tensor
    vectors: dict[str, Tensor]

    @classmethod
    def build(cls, asof: AsOf, fitted: FittedFeatures, device: str = "cpu") -> "ArticleTables":
        """From the as-of view. Raises DataError where a family's vectors have another size than in training."""
        vectors = {}
        for family, dim in fitted.spec.content_dims.items():
            found = asof.content(family).vectors
            if found.shape[1] != dim:
                raise DataError(
                    f"{family} vectors have {found.shape[1]} dimensions, the model was trained with {dim}: "
                    f"rebuild article_embeddings with the same encoder or train again"
                )
            scaled = F.normalize(torch.from_numpy(found), dim=1) * dim**0.5
            vectors[family] = torch.cat([scaled, scaled.new_zeros(1, dim)]).to(device)
        articles = asof.articles
        category = torch.from_numpy(fitted.category_codes(articles)).to(device)
        premium = torch.from_numpy(articles.premium.astype("int64") + 1).to(device)
        return cls(category, premium, torch.from_numpy(fitted.numeric(articles)).to(device), vectors)


class ArticleEncoder(nn.Module):
    """Three-layer perceptron over the concatenated families, unit-length output (Sec. 4.2).

    The first layer is split by family, so that the part which does not move with time (`static`) can be kept and
    only `finish` be repeated. In training each family is dropped or blurred as the recipe says.
    """

    def __init__(self, spec: FeatureSpec, recipe: Recipe) -> None:
        super().__init__()
        self.spec = spec
        self.perturbation: dict[str, Perturbation] = {str(f): p for f, p in recipe.perturbation.items()}
        self.content = nn.ModuleDict(
            {f: nn.Linear(dim, recipe.hidden, bias=False) for f, dim in spec.content_dims.items()}
        )
        if "meta" in spec.families:
            self.category = nn.Embedding(len(spec.categories) + 1, recipe.category_dim)
            self.premium = nn.Embedding(3, _PREMIUM_DIM)
            self.meta = nn.Linear(recipe.category_dim + _PREMIUM_DIM + len(NUMERIC), recipe.hidden, bias=False)
        self.dynamic = nn.Linear(spec.width, recipe.hidden)
        self.middle = nn.Linear(recipe.hidden, recipe.hidden)
        self.last = nn.Linear(recipe.hidden, recipe.dim)
        self.shortcut = nn.Linear(recipe.hidden, recipe.dim, bias=False)

    def static(self, tables: ArticleTables, row: Tensor, version: dict[str, Tensor]) -> Tensor:
        """First-layer sum of content and metadata, [n, hidden].

        `row` int64 [n]; `version` int64 [n] for each content family, -1 for none. In training each distinct article or
        version is multiplied once; otherwise all n, so that a row's bits do not depend on the other rows.
        """
        parts = []
        for family, projection in self.content.items():
            vectors = tables.vectors[family]
            distinct, inverse = self._distinct(version[family] % len(vectors))
            parts.append(self._keep(family, projection(self._blur(family, vectors[distinct]))[inverse]))
        if "meta" in self.spec.families:
            distinct, inverse = self._distinct(row)
            numeric = self._blur("meta", tables.numeric[distinct])
            codes = (self.category(tables.category[distinct]), self.premium(tables.premium[distinct]))
            parts.append(self._keep("meta", self.meta(torch.cat([*codes, numeric], dim=1))[inverse]))
        return sum(parts[1:], parts[0]) if parts else self.dynamic.bias.new_zeros(len(row), self.middle.in_features)

    def finish(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """Article vectors of unit length [n, dim] from `static` [n, hidden] and `dynamic` [n, width]."""
        if self.training and self.spec.blocks:
            parts = [self._keep(f, self._blur(f, dynamic[:, block])) for f, block in self.spec.blocks.items()]
            dynamic = torch.cat(parts, dim=1)
        first = static + self.dynamic(dynamic)
        deep = self.last(F.relu(self.middle(F.relu(first))))
        return F.normalize((deep + self.shortcut(first)).float(), dim=-1)

    def forward(self, tables: ArticleTables, articles: ArticleInputs) -> Tensor:
        """Vectors [n, dim] of articles as of their times."""
        device = self.middle.weight.device
        version = {f: torch.from_numpy(v).to(device) for f, v in articles.version.items()}
        static = self.static(tables, torch.from_numpy(articles.row).to(device), version)
        return self.finish(static, torch.from_numpy(articles.dynamic).to(device))

    def _distinct(self, index: Tensor) -> tuple[Tensor, Tensor | slice]:
        """Values to compute, and where each of `index` finds its own among them."""
        return torch.unique(index, return_inverse=True) if self.training else (index, slice(None))

    def _blur(self, family: str, values: Tensor) -> Tensor:
        how = self.perturbation.get(family, Perturbation())
        if not self.training:
            return values
        if how.noise:
            values = values + how.noise * torch.randn_like(values)
        return F.dropout(values, how.drop) if how.drop else values

    def _keep(self, family: str, values: Tensor) -> Tensor:
        """Drop the whole family for a random share of the articles (not scaled up: it reads as "unknown")."""
        how = self.perturbation.get(family, Perturbation())
        if not (self.training and how.drop_family):
            return values
        kept = torch.rand(len(values), 1, device=values.device) >= how.drop_family
        return values * kept


class Block(nn.Module):
    """One pre-norm transformer encoder layer; keys where `mask` is False get attention exactly 0."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.heads, self.dropout = recipe.heads, recipe.dropout
        self.norm_attention = nn.LayerNorm(recipe.dim)
        self.qkv = nn.Linear(recipe.dim, 3 * recipe.dim)
        self.out = nn.Linear(recipe.dim, recipe.dim)
        self.norm_forward = nn.LayerNorm(recipe.dim)
        self.widen = nn.Linear(recipe.dim, recipe.feedforward)
        self.narrow = nn.Linear(recipe.feedforward, recipe.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; `mask` bool [B, L], True for real positions (at least one a row)."""
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :], dropout_p=rate)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, dim)), rate)
        return x + F.dropout(self.narrow(F.gelu(self.widen(self.norm_forward(x)))), rate)


class UserEncoder(nn.Module):
    """Interaction encoder, transformer stack and attention pooling (Sec. 4.3).

    A click is the sum of its article's vector, its context (gap, read time, running session) and its position counted
    from the end, so that where padding lies does not matter. A learned vector stands in for an empty history.
    """

    def __init__(self, spec: FeatureSpec, recipe: Recipe) -> None:
        super().__init__()
        self.interaction = "interaction" in spec.families
        self.scale = recipe.dim**0.5
        self.position = _embedding(recipe.session_length, recipe.dim)
        if self.interaction:
            self.gap = _embedding(len(GAP_EDGES_S) + 2, recipe.dim)
            self.read = _embedding(len(READ_EDGES_S) + 2, recipe.dim)
            self.running = _embedding(2, recipe.dim)
        self.empty = nn.Parameter(torch.randn(recipe.dim) * 0.02)
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.layers))
        self.norm = nn.LayerNorm(recipe.dim)
        self.query = nn.Parameter(torch.randn(recipe.dim) * recipe.dim**-0.5)

    def forward(self, articles: Tensor, history: HistoryInputs) -> Tensor:
        """Reader vectors of unit length [B, d]; `articles` [n, d] are the vectors of the history's articles."""
        return self.pool(*self.embed(articles, history))

    def embed(self, articles: Tensor, history: HistoryInputs) -> tuple[Tensor, Tensor]:
        """Interaction embeddings [B, L, d] and which positions are real, bool [B, L]; position 0 is the most recent
        click, L the batch's longest history (at least 1)."""
        device = articles.device
        owner, slot, gap, read, running = (
            torch.from_numpy(a).to(device)
            for a in (history.owner, history.slot, history.gap, history.read, history.running)
        )
        tokens = articles * self.scale + self.position(slot)
        if self.interaction:
            tokens = tokens + self.gap(gap) + self.read(read) + self.running(running)
        length = int(history.slot.max(initial=0)) + 1
        x = tokens.new_zeros(history.size, length, tokens.shape[1]).index_put((owner, slot), tokens)
        mask = torch.zeros(history.size, length, dtype=torch.bool, device=device)
        mask[owner, slot] = True
        none = ~mask[:, 0]
        x = torch.cat([torch.where(none[:, None], self.empty.to(x.dtype), x[:, 0])[:, None], x[:, 1:]], dim=1)
        mask[:, 0] = True
        return x, mask

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Reader vectors [B, d] of embedded interactions: transformer stack, attention pooling (Eq. 4.1)."""
        states = self.encode(x, mask)
        weights = self.attention(states, mask)
        return F.normalize((weights.unsqueeze(-1) * states).sum(1).float(), dim=-1)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """Hidden states H [B, L, d] of the encoder stack."""
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def attention(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pooling weights softmax(Hᵀq) [B, L] (Eq. 4.1), exactly 0 where `mask` is False."""
        scores = (states @ self.query).float().masked_fill(~mask, float("-inf"))
        return torch.softmax(scores, dim=1).to(states.dtype)


class SnertNet(nn.Module):
    """The two towers; both read articles through the one encoder (tied weights)."""

    def __init__(self, spec: FeatureSpec, recipe: Recipe) -> None:
        super().__init__()
        self.article = ArticleEncoder(spec, recipe)
        self.user = UserEncoder(spec, recipe)

    def forward(self, tables: ArticleTables, history: HistoryInputs, articles: ArticleInputs) -> tuple[Tensor, Tensor]:
        """Reader vectors [B, d] and the vectors [n, d] of `articles`; history and articles are encoded in one pass."""
        vectors = self.article(tables, ArticleInputs.concat([history.articles, articles]))
        clicked, asked = vectors.split([len(history.articles), len(articles)])
        return self.user(clicked, history), asked


def _embedding(size: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(size, dim)
    nn.init.normal_(table.weight, std=0.2)
    return table


def save_weights(net: SnertNet, path: Path) -> None:
    """Write the weights as safetensors (float32, contiguous, on the CPU)."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}, path)


def load_weights(spec: FeatureSpec, recipe: Recipe, path: Path) -> SnertNet:
    """The network with the weights of a file of `save_weights`. Raises DataError in one line where the file is damaged,
    holds other names, types or shapes than the recipe asks for, or is not finite; no memory is taken for the network
    before the file is found to hold it."""
    with torch.device("meta"):
        net = SnertNet(spec, recipe)
    expected = {name: Layout("F32", tuple(tensor.shape)) for name, tensor in net.state_dict().items()}
    found = load_tensors(path, expected, load_file, "train again, or take the recipe.json that belongs to it")
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"{path}: {name} holds NaN or infinity: refusing the checkpoint; train again")
    net.load_state_dict({name: tensor.clone() for name, tensor in found.items()}, assign=True)
    return net

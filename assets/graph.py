"""All stages, in the order in which data flows.

Belongs here: the list. Does not belong here: anything else.
"""

from assets.analysis import DATASET_ANALYSIS
from assets.checkpoint import CHECKPOINT
from assets.decay import DECAY
from assets.drift import DRIFT
from assets.embeddings import ARTICLE_EMBEDDINGS
from assets.evaluation import EVALUATION_RQ1, EVALUATION_RQ2, EVALUATION_RQ3
from assets.features import ARTICLE_FEATURES
from assets.index import FAISS_INDEX
from assets.interactions import INTERACTIONS
from assets.popularity import POPULARITY_TENSOR
from assets.predictions import PREDICTIONS
from assets.promotion import PROMOTION
from assets.raw import RAW
from assets.report import EVALUATION_REPORT
from assets.segments import EVALUATION_SEGMENTS
from assets.sessions import SESSION_SPLITS
from assets.tables import ARTICLES, CLICKS, IMPRESSIONS

STAGES = (
    RAW,
    ARTICLES,
    CLICKS,
    IMPRESSIONS,
    DATASET_ANALYSIS,
    ARTICLE_EMBEDDINGS,
    INTERACTIONS,
    ARTICLE_FEATURES,
    POPULARITY_TENSOR,
    SESSION_SPLITS,
    CHECKPOINT,
    FAISS_INDEX,
    PREDICTIONS,
    EVALUATION_RQ1,
    EVALUATION_RQ2,
    EVALUATION_RQ3,
    EVALUATION_SEGMENTS,
    EVALUATION_REPORT,
    PROMOTION,
    DECAY,
    DRIFT,
)
BY_NAME = {stage.name: stage for stage in STAGES}

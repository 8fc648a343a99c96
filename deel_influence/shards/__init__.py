"""Long runs over a training set in shards: one after another, in many processes, on a cluster."""

from .data import Shard, split
from .jobs import build_index_in_shards, fit_in_shards, score_in_shards
from .merging import merge_files
from .running import run_tasks
from .sending import SavedCalculator
from .tasks import IndexTask, ScoreTask, ShardTask, SumsTask

__all__ = [
    "IndexTask",
    "SavedCalculator",
    "ScoreTask",
    "Shard",
    "ShardTask",
    "SumsTask",
    "build_index_in_shards",
    "fit_in_shards",
    "merge_files",
    "run_tasks",
    "score_in_shards",
    "split",
]

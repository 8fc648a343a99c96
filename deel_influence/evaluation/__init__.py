"""How good are the answers? Comparisons with a known truth."""

from .convex import ConvexTraining
from .correlations import pearson, spearman, strategy_correlations
from .evaluating import evaluate
from .evaluation import Evaluation
from .fixing import FixingCurve, accuracy_after_fixing
from .ground_truth import GroundTruth
from .last_layer import LastLayer
from .lds import LinearDatamodellingScore, linear_datamodelling_score
from .measures import QueryOutputs
from .mislabel import average_precision, detection_curve, recall_at_budget, roc_auc
from .networks import NetworkTraining
from .randomisation import ModelRandomisation, model_randomisation
from .recorded_runs import RunRetraining
from .removals import RemovalCorrelation, predicted_changes, removal_correlation
from .retraining import retrain, retrain_shard
from .subsets import leave_groups_out, leave_one_out, random_subsets
from .top_removal import Brittleness, QueryLossDifference, brittleness, query_loss_difference

__all__ = [
    "Brittleness",
    "ConvexTraining",
    "Evaluation",
    "FixingCurve",
    "GroundTruth",
    "LastLayer",
    "LinearDatamodellingScore",
    "ModelRandomisation",
    "NetworkTraining",
    "QueryLossDifference",
    "QueryOutputs",
    "RemovalCorrelation",
    "RunRetraining",
    "accuracy_after_fixing",
    "average_precision",
    "brittleness",
    "detection_curve",
    "evaluate",
    "leave_groups_out",
    "leave_one_out",
    "linear_datamodelling_score",
    "model_randomisation",
    "pearson",
    "predicted_changes",
    "query_loss_difference",
    "random_subsets",
    "recall_at_budget",
    "removal_correlation",
    "retrain",
    "retrain_shard",
    "roc_auc",
    "spearman",
    "strategy_correlations",
]

"""One step of training, split: each party's half without I/O, its optimiser, and its checkpoints.

Who calls what: the silo runs :class:`SiloTrainer`, the worker :class:`TrunkTrainer`; what passes between
them is packed hidden states, gradients, loss sums and outcomes. With one silo the parts compute, bit for
bit, what the unsplit model computes in fp32 on a CPU.
"""

from splitlearn.training.checkpoints import CheckpointStore
from splitlearn.training.clipping import clip_coefficient, gradient_norms, scale_gradients, total_norm
from splitlearn.training.learning_rate import learning_rate
from splitlearn.training.optimizer import build_optimizer, set_learning_rate
from splitlearn.training.outcomes import token_weights
from splitlearn.training.precision import PRECISIONS, LossScale, computes_in
from splitlearn.training.seeding import (
    TRUNK_PARTY,
    StepKey,
    derive_seed,
    dropout_seed,
    replica_party,
    seeded,
)
from splitlearn.training.silo import SiloTrainer
from splitlearn.training.trunk import TrunkPart, TrunkTrainer
from splitlearn.training.trunk_average import (
    average_replicas,
    begun_losses,
    begun_with,
    contribution,
    state_of_replica,
)

__all__ = [
    "PRECISIONS",
    "TRUNK_PARTY",
    "CheckpointStore",
    "LossScale",
    "SiloTrainer",
    "StepKey",
    "TrunkPart",
    "TrunkTrainer",
    "average_replicas",
    "begun_losses",
    "begun_with",
    "build_optimizer",
    "clip_coefficient",
    "computes_in",
    "contribution",
    "derive_seed",
    "dropout_seed",
    "gradient_norms",
    "learning_rate",
    "replica_party",
    "scale_gradients",
    "seeded",
    "set_learning_rate",
    "state_of_replica",
    "token_weights",
    "total_norm",
]

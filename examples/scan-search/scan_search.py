"""Reads a scanned page line by line, and ranks the lines by how close their meaning is to a query: a program for
`longhaul worker --persistent`.

`scan_search.py FOLDER` opens images of that folder only, whatever a client asks for.
"""

import os
import sys
import time
from pathlib import Path

from child import Child, invalid

STAGES = {"Finding the lines": 0.4, "Reading": 0.55, "Searching": 0.05}
"""What part of a job's time each takes, as measured with a page of 10 lines."""
CONFIDENCE_MIN = 0.5
"""What was read with less is no text, but a picture or a stain."""
QUERY_CHARACTERS_MAX = 500


class ScanSearch:
    def __init__(self, child: Child):
        self.child = child
        start = time.monotonic()
        child.say(stage="Loading the models")
        # Takes most of the time, so it belongs into the stage.
        import models

        self.reader, self.embedder = models.Reader(), models.Embedder()
        child.say(log=f"process {os.getpid()} loaded its models in {time.monotonic() - start:.1f} s", level="info")

    def progress(self, stage: str, completed: int, total: int) -> None:
        """How far the job is: the stages before this one, and its own part."""
        names = list(STAGES)
        before = sum(STAGES[name] for name in names[: names.index(stage)])
        fraction = round(before + STAGES[stage] * completed / total, 4)
        self.child.say(progress=fraction, stage=stage, completed=completed, total=total, unit="lines", estimated=True)

    def read(self, path: Path) -> list[dict]:
        """The lines of an image. Each is output as it comes."""
        self.child.say(progress=0, stage="Finding the lines", estimated=True)
        images, lines = self.reader.lines(path), []
        for number, image in enumerate(images, 1):
            text, confidence = self.reader.read(image)
            if confidence >= CONFIDENCE_MIN:
                self.child.say(output=f"{text}\n")
                lines.append({"line": number, "text": text, "confidence": round(confidence, 3)})
            self.progress("Reading", number, len(images))
        return lines

    def rank(self, lines: list[dict], query: str) -> list[dict]:
        """The lines with their scores, from -1 to 1, the best first."""
        wanted = self.embedder.vector(query)
        for number, line in enumerate(lines, 1):
            line["score"] = round(float(self.embedder.vector(line["text"]) @ wanted), 3)
            self.progress("Searching", number, len(lines))
        return sorted(lines, key=lambda line: -line["score"])


def main(folder: Path) -> None:
    scan_search: ScanSearch | None = None

    def image(name: object) -> Path:
        """The file that an input names."""
        if not isinstance(name, str) or "\0" in name:
            raise invalid("image", "the path of an image")
        path = (folder / name).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise invalid("image", "the path of an image that is in the worker's folder")
        return path

    def work(child: Child, job: dict) -> dict:
        nonlocal scan_search
        path, query = image(job["input"].get("image")), job["input"].get("query")
        if not isinstance(query, str) or not query.strip() or len(query) > QUERY_CHARACTERS_MAX:
            raise invalid("query", f"a text of 1 to {QUERY_CHARACTERS_MAX} characters")
        scan_search = scan_search or ScanSearch(child)
        lines = scan_search.read(path)
        return {"lines": scan_search.rank(lines, query)}

    Child().serve(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

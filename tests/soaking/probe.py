"""What a server takes of the machine: memory, descriptors, threads, and space on the disk."""

import collections
import os
import pathlib
import threading
import time

Sample = collections.namedtuple("Sample", "time life memory descriptors threads disk log")


class Probe:
    """Looks at one server after the other, and keeps what it saw."""

    def __init__(self, folder, interval):
        self.folder, self.interval = pathlib.Path(folder), interval
        self.samples, self.life, self.pid = [], 0, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def look(self, pid):
        """What there is now, or nothing where the process is gone."""
        process = pathlib.Path(f"/proc/{pid}")
        try:
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            descriptors = len(os.listdir(process / "fd"))
            memory = int(status["VmRSS"].split()[0]) << 10
            return Sample(time.monotonic(), self.life, memory, descriptors, int(status["Threads"]), *self.sizes())
        except (OSError, KeyError):
            return None

    def sizes(self):
        """What the data folder has, in bytes, and besides what the log of its store has."""
        disk = log = 0
        for path in self.folder.rglob("*"):
            # A log may go away while we look.
            try:
                size = path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
            if path.name.endswith("-wal"):
                log += size
            else:
                disk += size
        return disk, log

    def sample(self):
        while not self.over.wait(self.interval):
            if (pid := self.pid) and (seen := self.look(pid)):
                self.samples.append(seen)

    def begins(self, pid):
        """Another server's life begins."""
        self.life += 1
        self.pid = pid

    def ends(self):
        """It is about to end."""
        self.pid = None

    def close(self):
        self.over.set()
        self.thread.join()

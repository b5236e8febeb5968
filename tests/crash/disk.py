"""A disk, as far as a power cut is concerned: what preload.c noted, replayed, and what may be left of it.

The strict disk keeps what was flushed and nothing else: a file's bytes by a flush of the file, its name by a flush of its
folder. The torn disk keeps besides, by lot, any of the other writes in sectors of 512 bytes, and the other changes of names up
to some point. The bytes that a flush failed on are not kept by a later flush either, since the kernel takes them for written
(Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020); names are, as they are in a journal.
"""

import pathlib
import struct

HEAD = struct.Struct("<cIIqq")
SECTOR = 512


class File:
    def __init__(self):
        self.present = bytearray()
        self.durable = bytearray()
        # What was done since the last flush.
        self.pending = []

    def do(self, change):
        apply(self.present, change)
        self.pending.append(change)

    def flush(self):
        for change in self.pending:
            apply(self.durable, change)
        self.pending = []

    def lose(self):
        """A flush failed: what is in memory stays, and is not written any more."""
        self.pending = []

    def remains(self, lots):
        content = bytearray(self.durable)
        for change in self.pending if lots else []:
            for part in parts(change):
                if lots.random() < 0.5:
                    apply(content, part)
        return bytes(content)


class Folder:
    def __init__(self):
        self.present = {}
        self.durable = {}
        self.pending = []

    def do(self, change):
        change(self.present)
        self.pending.append(change)

    def flush(self):
        for change in self.pending:
            change(self.durable)
        self.pending = []

    def lose(self):
        """A flush failed: the names wait for the next."""

    def remains(self, lots):
        names = dict(self.durable)
        for change in self.pending[: lots.randint(0, len(self.pending))] if lots else []:
            change(names)
        return names


def apply(content, change):
    """Writes `data` at an offset, or sets the length."""
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def parts(change):
    """A change, sector by sector."""
    offset, data = change
    while data:
        length = SECTOR - offset % SECTOR
        yield offset, data[:length]
        offset, data = offset + length, data[length:]
    if data is None:
        yield change


class Disk:
    """The folder at `root`, from its content at the start on."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.top = load(self.root)

    def find(self, path):
        """What is at a path, and the folder and name that it is known by."""
        parent, node, name = None, self.top, ""
        for name in pathlib.Path(path).relative_to(self.root).parts:
            parent = node
            node = parent.present.get(name) if isinstance(parent, Folder) else None
        return node, parent, name

    def replay(self, notes, flushes=lambda path, node: True):
        """Does all that was noted, but for flushes that are not to count. Returns the kind and path of each change."""
        data, at, done = pathlib.Path(notes).read_bytes(), 0, []
        while at + HEAD.size <= len(data):
            kind, path_length, text_length, offset, size = HEAD.unpack_from(data, at)
            at += HEAD.size
            path = data[at : at + path_length].decode()
            text = data[at + path_length : at + path_length + text_length]
            at += path_length + text_length
            done.append((kind.decode(), path))
            node, parent, name = self.find(path)
            if kind == b"W" and node:
                node.do((offset, text))
            elif kind == b"T" and node:
                node.do((size, None))
            elif kind == b"S" and node and flushes(path, node):
                node.flush()
            elif kind == b"F" and node:
                node.lose()
            elif kind in b"CM":
                new = File() if kind == b"C" else Folder()
                parent.do(lambda names, name=name, new=new: names.__setitem__(name, new))
            elif kind == b"U":
                parent.do(lambda names, name=name: names.pop(name, None))
            elif kind == b"R":
                to = pathlib.Path(text.decode())
                if to.parent != pathlib.Path(path).parent:
                    raise NotImplementedError(f"{path} was moved to another folder")
                parent.do(lambda names, name=name, to=to.name: move(names, name, to))
        return done

    def write(self, target, lots=None):
        """Writes what a power cut leaves to a new folder: the strict disk, or with `lots` a torn one."""
        write(self.top, pathlib.Path(target), lots)

    def differs(self):
        """Where what was noted is not what the folder has: something that the shim does not see."""
        return differs(self.top, self.root)


def move(names, old, new):
    if old in names:
        names[new] = names.pop(old)


def load(path):
    """A folder as it is, all of it durable."""
    node = Folder()
    for entry in path.iterdir() if path.exists() else []:
        if entry.is_dir():
            child = load(entry)
        else:
            child = File()
            child.present = bytearray(entry.read_bytes())
            child.durable = bytearray(child.present)
        node.present[entry.name] = node.durable[entry.name] = child
    return node


def write(node, target, lots):
    if isinstance(node, File):
        return target.write_bytes(node.remains(lots))
    target.mkdir()
    for name, child in node.remains(lots).items():
        write(child, target / name, lots)


def differs(node, path):
    if isinstance(node, File):
        return [] if path.read_bytes() == node.present else [str(path)]
    there = {entry.name for entry in path.iterdir() if not entry.name.endswith("-shm")}
    found = [str(path / name) for name in there ^ set(node.present)]
    for name in there & set(node.present):
        found += differs(node.present[name], path / name)
    return found

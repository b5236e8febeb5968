//! The rooms of ARCHITECTURE.md: who may import whom, held against the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// A room, the rooms that it may import, and the crates that it must never know.
struct Room {
    name: &'static str,
    may: &'static [&'static str],
    never: &'static [&'static str],
}

const PROTOCOL: &[&str] = &["tonic", "prost", "hyper", "http"];

const ROOMS: &[Room] = &[
    // Faults that the simulation puts in; in no build that is shipped.
    Room {
        name: "mutants",
        may: &[],
        never: &["tokio", "rand", "tonic", "prost", "rusqlite", "hyper", "clap"],
    },
    Room {
        name: "job",
        may: &["mutants"],
        never: &["tokio", "rand", "tonic", "prost", "rusqlite", "async_trait", "hyper", "clap"],
    },
    Room {
        name: "store",
        may: &["job"],
        never: &["tokio", "tonic", "prost", "hyper", "clap", "prometheus_client"],
    },
    Room { name: "clock", may: &["job"], never: PROTOCOL },
    Room {
        name: "engine",
        may: &["job", "store", "clock", "mutants"],
        never: &["rusqlite", "tonic", "prost", "hyper", "http", "clap", "prometheus_client"],
    },
    Room {
        name: "worker",
        may: &["engine", "job", "clock", "mutants"],
        never: &["rusqlite", "tonic", "prost", "hyper", "clap"],
    },
    // The one part of a room that knows more: a source of jobs elsewhere.
    Room {
        name: "worker/remote",
        may: &["engine", "job", "clock", "proto"],
        never: &["rusqlite", "hyper", "clap"],
    },
    Room {
        name: "processor",
        may: &["worker", "job"],
        never: &["rusqlite", "tonic", "prost", "hyper", "clap"],
    },
    Room {
        name: "metrics",
        may: &["engine", "job"],
        never: &["rusqlite", "tokio", "tonic", "prost", "hyper", "http", "clap"],
    },
    Room { name: "proto", may: &[], never: &["tokio", "rusqlite"] },
    Room { name: "wire", may: &["job", "proto", "engine"], never: &["rusqlite", "tokio", "hyper", "clap"] },
    Room {
        name: "traces",
        may: &["engine", "job", "clock"],
        never: &["rusqlite", "tonic", "prost", "hyper", "clap"],
    },
    Room { name: "edge", may: &[], never: &["rusqlite", "clap", "prost"] },
    Room {
        name: "api",
        may: &["engine", "job", "wire", "proto", "metrics", "traces"],
        never: &["rusqlite", "clap", "hyper"],
    },
    Room {
        name: "rpc",
        may: &["api", "edge::Late", "edge::room", "engine", "job", "wire", "proto"],
        never: &["rusqlite", "clap"],
    },
    Room {
        name: "http",
        may: &["api", "edge::room", "engine", "job", "metrics", "wire", "proto"],
        never: &["rusqlite", "clap"],
    },
];

/// The engine knows the trait and its words, and no store.
const STORES: &[&str] = &["SqliteStore", "MemoryStore"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Tests may use what they like.
fn is_test(path: &Path) -> bool {
    path.components()
        .any(|part| ["tests", "tests.rs", "fake.rs"].iter().any(|name| part.as_os_str() == *name))
}

/// The source without comments and without its tests.
fn code(text: &str) -> Vec<(usize, &str)> {
    let own = text.lines().take_while(|line| !line.starts_with("mod tests {"));
    own.enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(n, line)| (n + 1, line))
        .collect()
}

/// What a line imports from this crate: each path behind `crate::`, groups taken apart.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group.split(',').map(|path| path.trim().to_owned())),
            None => match rest.split_once("::{") {
                Some((room, group)) if room.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                    found.extend(group.split(',').map(|path| format!("{room}::{}", path.trim())));
                }
                _ => found.push(rest.to_owned()),
            },
        }
    }
    found
}

/// What is wrong with a source of this room.
fn violations(room: &Room, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code(text) {
        for import in imports(line) {
            let path = import.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_');
            let allowed = |may: &&str| {
                path == *may
                    || path
                        .strip_prefix(*may)
                        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
            };
            let own =
                path.split(|c: char| !c.is_alphanumeric() && c != '_').next() == room.name.split('/').next();
            if !own && !path.is_empty() && !room.may.iter().any(allowed) {
                found.push((number, format!("`{}` imports crate::{path}", room.name)));
            }
        }
        for never in room.never {
            let used = line.contains(&format!("{never}::")) && !line.contains(&format!("::{never}::"));
            let word = used
                && line
                    .split(&format!("{never}::"))
                    .next()
                    .is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if word {
                found.push((number, format!("`{}` knows {never}", room.name)));
            }
        }
        if room.name == "engine" && STORES.iter().any(|store| line.contains(store)) {
            found.push((number, "`engine` knows a store".to_owned()));
        }
    }
    found
}

/// The files of a room, without those of a part that is a room of its own.
fn files(name: &str) -> Vec<PathBuf> {
    let (file, folder) = (src().join(format!("{name}.rs")), src().join(name));
    let mut files = if folder.exists() { sources(&folder) } else { Vec::new() };
    files.extend(Some(file).filter(|file| file.exists()));
    let parts = ROOMS.iter().map(|room| room.name).filter(|other| other.starts_with(&format!("{name}/")));
    for part in parts {
        let (file, folder) = (src().join(format!("{part}.rs")), src().join(part));
        files.retain(|path| *path != file && !path.starts_with(&folder));
    }
    files
}

#[test]
fn every_room_imports_what_it_may_and_nothing_else() {
    let mut found = Vec::new();
    for room in ROOMS {
        let files = files(room.name);
        assert!(!files.is_empty(), "there is no room {}", room.name);
        for path in files.iter().filter(|path| !is_test(path)) {
            for (line, what) in violations(room, &fs::read_to_string(path).unwrap()) {
                found.push(format!("{}:{line}: {what}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_check_finds_what_it_looks_for() {
    let room = |name: &str| ROOMS.iter().find(|room| room.name == name).unwrap();
    for (name, bad) in [
        ("job", "use tokio::sync::Notify;"),
        ("job", "use crate::store::Error;"),
        ("store", "use crate::{engine, job};"),
        ("engine", "let store = SqliteStore::open(path);"),
        ("worker", "    let x = crate::store::Parts::FULL;"),
        ("worker", "use crate::proto::Job;"),
        ("worker/remote", "use crate::wire::reply;"),
        ("rpc", "use crate::store::SqliteStore;"),
        ("wire", "use crate::store::Parts;"),
        ("metrics", "use crate::wire::status::REASONS;"),
        ("engine", "use prometheus_client::registry::Registry;"),
    ] {
        assert_eq!(violations(room(name), bad).len(), 1, "{name}: {bad}");
    }
    for (name, good) in [
        ("engine", "use crate::store::{Operation, Store};"),
        ("rpc", "use crate::engine::{EventLimit, Parts};"),
        ("worker/remote", "use crate::worker::source::Error;"),
        ("job", "// like tokio::time, but pure"),
        ("wire", "use crate::proto::{self, job_event};"),
    ] {
        assert_eq!(violations(room(name), good), [], "{name}: {good}");
    }
}

#[test]
fn every_file_says_at_its_head_what_it_is_for() {
    for path in sources(&src()).iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

#[test]
fn only_tests_unwrap_and_only_the_clock_reads_the_time() {
    for path in sources(&src()).iter().filter(|path| !is_test(path)) {
        for (number, line) in code(&fs::read_to_string(path).unwrap()) {
            let place = format!("{}:{number}: {line}", path.display());
            assert!(!line.contains(".unwrap()"), "{place}");
            assert!(!line.contains("SystemTime::now") || path.ends_with("clock.rs"), "{place}");
        }
    }
}

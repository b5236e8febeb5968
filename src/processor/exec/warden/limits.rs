//! What a program may use, taken on by whoever becomes it: our own binary, called once more.

use crate::processor::exec::program::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setpriority_process, setrlimit};
use std::ffi::OsString;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The priority of a program, whatever its warden's is.
const ORDINARY: i32 = 0;

/// Takes limits on, and becomes a program; returns only where that fails.
pub fn launch(limits: Limits, file: PathBuf, arguments: Vec<OsString>) -> std::io::Error {
    let Limits { memory_bytes, cpu_time, open_files, file_bytes, processes } = limits;
    let mut own_processes = None;
    if let Some(processes) = processes {
        let _ = setpriority_process(None, ORDINARY);
        // The kernel counts all processes of a user, and none of root's.
        own_processes = Some(user_processes() + u64::from(processes));
    }
    let wanted = [
        (Resource::Nproc, own_processes),
        (Resource::As, memory_bytes),
        (Resource::Cpu, cpu_time.map(|time| time.as_secs().max(1))),
        (Resource::Nofile, open_files),
        (Resource::Fsize, file_bytes),
    ];
    for (resource, limit) in wanted {
        let Some(limit) = limit else { continue };
        // Whoever may do less already is not to do more.
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        if let Err(error) = setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }) {
            return error.into();
        }
    }
    Command::new(file).args(arguments).exec()
}

/// How many processes our user has.
fn user_processes() -> u64 {
    let user = getuid().as_raw();
    let is_ours = |entry: &DirEntry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && entry.metadata().is_ok_and(|entry| entry.uid() == user)
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_ours).count() as u64
}

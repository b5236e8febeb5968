//! The processes below a warden: who they are, how many, and the end of all of them.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use rustix::system::sysinfo;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long to try to end what cannot be ended, as a process that waits for a disk that is gone.
const END_MAX: Duration = Duration::from_secs(10);
/// How often processes are counted, whether there seem to be too many or not.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// A process that has come from us, directly or not.
#[derive(Clone, Copy, Debug)]
pub struct Below {
    pub pid: Pid,
    /// It is our own child, by birth or by adoption.
    pub is_ours: bool,
    /// It waits to be buried.
    pub has_ended: bool,
}

/// How many processes a program may be, and how many it was when they were last counted.
pub struct Count {
    max: usize,
    count: usize,
    /// How many tasks the whole machine had then.
    tasks: usize,
    time: Instant,
}

impl Count {
    pub fn new(max: u32) -> Self {
        Self { max: max as usize, count: 1, tasks: tasks(), time: Instant::now() }
    }

    /// Whether there may be too many. A count costs a look at each process of the machine; this is one call.
    pub fn may_be_too_many(&self) -> bool {
        tasks() + self.count > self.tasks + self.max || self.time.elapsed() >= COUNT_EVERY
    }

    /// Counts anew, and says whether there are too many.
    pub fn are_too_many(&mut self, below: &[Below]) -> bool {
        let living = below.iter().filter(|below| !below.has_ended).count();
        (self.count, self.tasks, self.time) = (living, tasks(), Instant::now());
        living > self.max
    }
}

/// How many tasks the machine has.
fn tasks() -> usize {
    usize::from(sysinfo().procs)
}

/// All processes that have come from us.
pub fn descendants() -> Vec<Below> {
    let mut children: HashMap<i32, Vec<(Pid, bool)>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // It may be gone by now.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may have anything in it.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let has_ended = matches!(fields.next(), Some("Z" | "X"));
        if let Some(parent) = fields.next().and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push((pid, has_ended));
        }
    }
    let us = getpid().as_raw_nonzero().get();
    let (mut found, mut parents) = (Vec::new(), vec![us]);
    while let Some(parent) = parents.pop() {
        for (pid, has_ended) in children.remove(&parent).unwrap_or_default() {
            parents.push(pid.as_raw_nonzero().get());
            found.push(Below { pid, is_ours: parent == us, has_ended });
        }
    }
    found
}

/// Ends all that has come from us.
#[expect(clippy::disallowed_methods, reason = "it has nothing else to do, and no runtime to wait in")]
pub fn end_all() {
    let deadline = Instant::now() + END_MAX;
    let mut stopped = HashSet::new();
    while have_children() && Instant::now() < deadline {
        let living: Vec<Pid> =
            descendants().into_iter().filter(|below| !below.has_ended).map(|below| below.pid).collect();
        let fresh: Vec<Pid> = living.iter().copied().filter(|pid| stopped.insert(*pid)).collect();
        // What is stopped starts nothing new, so that in the end nothing is missed. Each may be gone by now.
        for pid in &fresh {
            let _ = kill_process(*pid, Signal::STOP);
        }
        if fresh.is_empty() {
            for pid in living {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether there is still something below us. Buries what has ended.
fn have_children() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// How many processes the kernel has killed for want of memory since it began.
pub fn kills_for_memory() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.unwrap_or(0)
}

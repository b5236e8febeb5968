//! The process beside each slot that starts programs, and ends all that they have started. Our own binary, called again.
//!
//! It is a subreaper: whatever loses its parent below it, by a double fork for one, becomes its own child, so that nothing
//! escapes. It ends, and everything with it, when its socket does: that is how a supervisor lets go, and how it dies. It
//! has no thread and no runtime, and knows nothing of jobs.

mod limits;
mod tree;

pub use limits::launch;

use super::program::Limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use rustix::process::*;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tree::{Count, descendants, end_all, kills_for_memory};

/// The first argument of our binary when it is to be a warden.
pub const WARDEN: &str = "warden";
/// And when it is to become a program under limits.
pub const LAUNCH: &str = "launch";
/// The largest order: arguments and an environment.
pub const ORDER_BYTES_MAX: usize = 192 << 10;
/// How often what was orphaned is buried while a program runs.
const BURY_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether there may be too many processes, where they are limited.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The priority of a warden that has to watch how many processes there are, where it may have it.
const WATCHFUL: i32 = -20;
/// When memory runs out, the kernel is to end programs before supervisors and servers.
const OOM_SCORE: &str = "500";

/// What a warden is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start a program, with the three descriptors that come along as its standard input, output and error.
    Start(Launch),
    /// Tell the program to stop: SIGTERM to its group.
    Terminate,
    /// End the program, and all that it has started.
    Kill,
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its file, by the whole path.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; none is where we do.
    pub folder: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
}

/// What a warden tells, once for each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The program could not be started.
    NotStarted(String),
    /// It has ended, and everything that it had started with it.
    Ended(End),
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its status, as `wait` tells it.
    pub status: i32,
    /// The kernel has killed something for want of memory since the last end.
    pub memory_ran_out: bool,
    /// It was killed because there were too many processes.
    pub too_many_processes: bool,
}

/// Is a warden, until nobody wants one any more. Standard input is the socket.
pub fn run() -> ExitCode {
    // What whoever started us has left open is not for programs.
    close_fds::set_fds_cloexec(3, &[]);
    let stdin = std::io::stdin();
    // It is inherited. Where it cannot be set, nothing else changes.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        eprintln!("longhaul: a warden cannot adopt orphans: {error}");
        return ExitCode::FAILURE;
    }
    let mut warden = Warden { socket: stdin.as_fd(), running: None, killed: kills_for_memory() };
    match warden.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            end_all();
            eprintln!("longhaul: a warden has to end: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Warden<'a> {
    socket: BorrowedFd<'a>,
    running: Option<Running>,
    /// How many processes the kernel had killed for want of memory at the last end.
    killed: u64,
}

/// A program that runs, and leads a group of its own.
struct Running {
    pid: Pid,
    /// Readable once it has ended.
    handle: OwnedFd,
    processes: Option<Count>,
    too_many_processes: bool,
}

impl Warden<'_> {
    fn serve(&mut self) -> rustix::io::Result<()> {
        let mut buffer = vec![0; ORDER_BYTES_MAX];
        loop {
            let (ordered, ended) = self.wait()?;
            if ended {
                self.bury()?;
            }
            if ordered {
                match receive(self.socket, &mut buffer)? {
                    Some((order, files)) => self.obey(order, files)?,
                    None => {
                        self.end();
                        end_all();
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits until there is an order, or the program has ended.
    fn wait(&mut self) -> rustix::io::Result<(bool, bool)> {
        let mut waited = vec![PollFd::new(&self.socket, PollFlags::IN)];
        let mut time = None;
        if let Some(running) = &self.running {
            waited.push(PollFd::new(&running.handle, PollFlags::IN));
            time = Some(if running.processes.is_some() { LOOK_EVERY } else { BURY_EVERY });
        }
        let time = time.map(|time| Timespec::try_from(time).expect("a short time"));
        match poll(&mut waited, time.as_ref()) {
            Ok(0) => {
                drop(waited);
                self.look_around();
                Ok((false, false))
            }
            Ok(_) => {
                let is_ready = |at: usize| waited.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Ok((is_ready(0), is_ready(1)))
            }
            Err(Errno::INTR) => Ok((false, false)),
            Err(error) => Err(error),
        }
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> rustix::io::Result<()> {
        match order {
            Order::Start(launch) => match start(launch, files) {
                Ok(running) => self.running = Some(running),
                Err(error) => self.report(&Report::NotStarted(error.to_string()))?,
            },
            // Where it has ended in between, that is on its way.
            Order::Terminate => {
                if let Some(running) = &self.running {
                    let _ = kill_process_group(running.pid, Signal::TERM);
                }
            }
            Order::Kill => self.end(),
        }
        Ok(())
    }

    /// Kills the program and its group. What it has started elsewhere follows once it is buried.
    fn end(&self) {
        if let Some(running) = &self.running {
            // All of the group at once, so that nobody in it can fork any more. The program is not buried, so its number
            // and that of the group are still its own. It may have left the group.
            let _ = kill_process_group(running.pid, Signal::KILL);
            let _ = kill_process(running.pid, Signal::KILL);
        }
    }

    /// Buries a program that has ended, and ends what it has left.
    fn bury(&mut self) -> rustix::io::Result<()> {
        self.end();
        let Some(running) = self.running.take() else { return Ok(()) };
        let Some((_, status)) = waitpid(Some(running.pid), WaitOptions::empty())? else { return Ok(()) };
        end_all();
        let mut memory_ran_out = false;
        if status.terminating_signal() == Some(Signal::KILL.as_raw()) {
            let killed = kills_for_memory();
            memory_ran_out = killed > self.killed;
            self.killed = killed;
        }
        let (status, too_many_processes) = (status.as_raw(), running.too_many_processes);
        self.report(&Report::Ended(End { status, memory_ran_out, too_many_processes }))
    }

    /// Counts the living, where they are limited, and buries orphans that have ended.
    fn look_around(&mut self) {
        let Some(running) = &mut self.running else { return };
        if running.processes.as_ref().is_some_and(|processes| !processes.may_be_too_many()) {
            return;
        }
        let below = descendants();
        if let Some(processes) = &mut running.processes {
            running.too_many_processes |= processes.are_too_many(&below);
        }
        let orphans =
            below.iter().filter(|below| below.is_ours && below.has_ended && below.pid != running.pid);
        for orphan in orphans {
            let _ = waitpid(Some(orphan.pid), WaitOptions::NOHANG);
        }
        if running.too_many_processes {
            self.end();
        }
    }

    fn report(&self, report: &Report) -> rustix::io::Result<()> {
        let bytes = postcard::to_stdvec(report).expect("a report can be written down");
        match send(self.socket, &bytes, SendFlags::NOSIGNAL) {
            // Nobody listens any more, which the next read tells as well.
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The next order, and the descriptors that came with it; none where nobody gives orders any more.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> rustix::io::Result<Option<(Order, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut room = [IoSliceMut::new(buffer)];
    let received = match recvmsg(socket, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC) {
        // A supervisor that was killed may have left a report unread.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let files = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .collect();
    let order = postcard::from_bytes(&buffer[..received.bytes]).map_err(|_| Errno::PROTO)?;
    Ok(Some((order, files)))
}

fn start(launch: Launch, files: Vec<OwnedFd>) -> std::io::Result<Running> {
    let Launch { file, arguments, environment, folder, limits } = launch;
    let [stdin, stdout, stderr]: [OwnedFd; 3] =
        files.try_into().map_err(|_| std::io::Error::other("an order to start came without its pipes"))?;
    if limits.processes.is_some() {
        // Among hundreds that fork, we must be heard. Where we may not, the kernel itself holds them to their number.
        let _ = setpriority_process(None, WATCHFUL);
    }
    // What is inherited can only be set by whoever becomes the program.
    let mut command = if limits != Limits::default() {
        let mut command = Command::new("/proc/self/exe");
        command.arg(LAUNCH).arg(serde_json::to_string(&limits)?).arg(&file);
        command
    } else {
        Command::new(&file)
    };
    command.args(arguments).env_clear().envs(environment);
    command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let processes = limits.processes.map(Count::new);
    Ok(Running { pid, handle, processes, too_many_processes: false })
}

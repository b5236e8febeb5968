//! Where programs run: a warden and, between its start and its end, a program with three pipes.

use super::warden::{End, Launch, ORDER_BYTES_MAX, Order, Report, WARDEN};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::Stdio;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// What a program may write between two jobs: more than its pipes hold is a flood.
const PASSED_OVER_MAX: usize = 256 << 10;
/// A warden's reports are small.
const REPORT_BYTES_MAX: usize = 4 << 10;

/// A warden and its program. When it is dropped, all that runs in it is killed.
#[derive(Debug)]
pub struct Seat {
    pub warden: Warden,
    /// The program, where it runs.
    pub pipes: Option<Pipes>,
}

/// A warden, from this side.
#[derive(Debug)]
pub struct Warden {
    /// Of packets, and connected: it tells the end of either side.
    socket: UnixDatagram,
    /// Kept, so that it is buried when it ends, which it does with the socket.
    _process: Child,
}

/// A program's standard input, output and error.
#[derive(Debug)]
pub struct Pipes {
    /// Open for as long as there is something to write.
    pub stdin: Option<pipe::Sender>,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

impl Seat {
    /// Starts a warden, which is our own binary, called again.
    pub fn start(longhaul: &Path) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(longhaul);
        // In a group of its own, so that Ctrl-C is for us alone.
        command.arg(WARDEN).env_clear().stdin(theirs).stdout(Stdio::null()).process_group(0);
        let process = command.spawn()?;
        let ours = std::os::unix::net::UnixDatagram::from(ours);
        ours.set_nonblocking(true)?;
        Ok(Self { warden: Warden { socket: UnixDatagram::from_std(ours)?, _process: process }, pipes: None })
    }

    /// Has a program started. Whether that goes well is told by the warden's next report.
    pub fn launch(&mut self, launch: Launch) -> io::Result<()> {
        let (stdin, ours_in) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ours_out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ours_err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        self.warden.send(&Order::Start(launch), &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
        self.pipes = Some(Pipes {
            stdin: Some(pipe::Sender::from_owned_fd(ours_in)?),
            stdout: pipe::Receiver::from_owned_fd(ours_out)?,
            stderr: pipe::Receiver::from_owned_fd(ours_err)?,
        });
        Ok(())
    }

    /// Whether the program of an earlier job still runs. What it has written since then is passed over.
    pub fn is_taken(&mut self) -> io::Result<bool> {
        if self.pipes.is_some() && self.warden.try_report()?.is_some() {
            self.pipes = None;
        }
        let Some(pipes) = &self.pipes else { return Ok(false) };
        let (mut buffer, mut passed_over) = ([0; 4 << 10], 0);
        for pipe in [&pipes.stdout, &pipes.stderr] {
            while let Ok(read @ 1..) = pipe.try_read(&mut buffer) {
                passed_over += read;
                if passed_over > PASSED_OVER_MAX {
                    return Err(io::Error::other("the program writes without end between its jobs"));
                }
            }
        }
        Ok(true)
    }
}

impl Warden {
    /// Tells it to tell the program to stop.
    pub fn terminate(&self) -> io::Result<()> {
        self.send(&Order::Terminate, &[])
    }

    /// Tells it to end the program, and all that it has started.
    pub fn kill(&self) -> io::Result<()> {
        self.send(&Order::Kill, &[])
    }

    /// How the program has ended, once it has; an error where it was not started, or the warden itself is gone. Cancel safe.
    pub async fn ended(&self) -> io::Result<End> {
        let report = self.socket.async_io(Interest::READABLE, || receive(self.socket.as_fd())).await?;
        match report {
            Report::Ended(end) => Ok(end),
            Report::NotStarted(why) => {
                Err(io::Error::other(format!("the program could not be started: {why}")))
            }
        }
    }

    fn try_report(&self) -> io::Result<Option<Report>> {
        match receive(self.socket.as_fd()) {
            Ok(report) => Ok(Some(report)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Orders are few and small, so there is always room for one more.
    fn send(&self, order: &Order, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = postcard::to_stdvec(order).map_err(io::Error::other)?;
        if bytes.len() > ORDER_BYTES_MAX {
            let text = format!(
                "arguments and environment are {} bytes; the limit is {ORDER_BYTES_MAX}",
                bytes.len()
            );
            return Err(io::Error::other(text));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Report> {
    let mut buffer = [0; REPORT_BYTES_MAX];
    match retry_on_intr(|| recv(socket, &mut buffer[..], RecvFlags::empty())) {
        Ok((0, _)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the program's warden has ended")),
        Ok((length, _)) => postcard::from_bytes(&buffer[..length]).map_err(io::Error::other),
        Err(error) => Err(error.into()),
    }
}

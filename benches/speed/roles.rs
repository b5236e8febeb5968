//! The processes of a run: how each is started, told what to do, and ended.

use crate::load::Load;
use crate::{collector, echo, handlers, load, programs, provider};
use anyhow::{Context as _, ensure};
use longhaul::cli::serve;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The threads that each server has for its calls.
pub const WORKER_THREADS: usize = 2;
/// What a server's first line begins with; its address follows.
const LISTENING: &str = "longhaul listening on ";

/// What this program is when it has started itself.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    /// A bare tonic server.
    Echo,
    /// A longhaul with the kinds of the benchmark.
    Handlers(PathBuf),
    /// A collector of traces.
    Collector,
    /// A provider of answers.
    Provider,
    /// A program that a worker runs.
    Program,
    /// Whoever calls; it prints what it measured as one line of JSON.
    Load(Load),
}

/// Plays the role until it is over.
pub fn play(role: &str) -> anyhow::Result<()> {
    match serde_json::from_str(role)? {
        Role::Echo => serve::runtime(WORKER_THREADS)?.block_on(echo::serve()),
        Role::Handlers(folder) => serve::runtime(WORKER_THREADS)?.block_on(handlers::serve(folder)),
        Role::Collector => serve::runtime(WORKER_THREADS)?.block_on(collector::serve()),
        Role::Provider => serve::runtime(WORKER_THREADS)?.block_on(provider::serve()),
        Role::Program => programs::program(),
        Role::Load(order) => load::run(order),
    }
}

/// Tells whoever started this server where it is.
pub fn announce(address: SocketAddr) {
    println!("{LISTENING}{address}");
}

/// A server in a process of its own, which ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// A bare tonic server.
    pub fn echo() -> anyhow::Result<Self> {
        Self::spawn(&mut myself(&Role::Echo)?)
    }

    /// A collector of traces.
    pub fn collector() -> anyhow::Result<Self> {
        Self::spawn(&mut myself(&Role::Collector)?)
    }

    /// A provider of answers.
    pub fn provider() -> anyhow::Result<Self> {
        Self::spawn(&mut myself(&Role::Provider)?)
    }

    /// The built longhaul, whose jobs wait for a worker that never comes.
    pub fn longhaul(folder: &Path) -> anyhow::Result<Self> {
        Self::longhaul_with(folder, &[])
    }

    /// The same with more settings.
    pub fn longhaul_with(folder: &Path, settings: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--slots", "0", "--log", "warn", "--data-dir"]);
        command.arg(folder).args(["--worker-threads", &WORKER_THREADS.to_string()]).args(settings);
        Self::spawn(&mut command)
    }

    /// A longhaul that runs the kinds of the benchmark.
    pub fn handlers(folder: &Path) -> anyhow::Result<Self> {
        Self::spawn(&mut myself(&Role::Handlers(folder.to_owned()))?)
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix(LISTENING).context("the server did not start")?.parse()?;
        Ok(Self { child, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets a process of its own make this load, and returns what it measured.
pub fn load<T: DeserializeOwned>(order: Load) -> anyhow::Result<T> {
    let output = myself(&Role::Load(order))?.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the load ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// This very program, in a role.
pub fn myself(role: &Role) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--role", &serde_json::to_string(role)?]);
    Ok(command)
}

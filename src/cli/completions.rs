//! `longhaul completions` and `longhaul man`: what a shell and a packager want to know of the command line itself.

use super::Cli;
use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print the completions for a shell
///
/// Where they belong is up to the shell. For bash, now and in every new one:
///
///   source <(longhaul completions bash)
///   longhaul completions bash > ~/.local/share/bash-completion/completions/longhaul
///
/// Example: longhaul completions zsh > ~/.zfunc/_longhaul
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "longhaul", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Print the manual page, or write all pages into a folder
///
/// Example: longhaul man | man -l -
/// Example: longhaul man /usr/local/share/man/man1
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Man {
    /// Write longhaul.1 and a page for each command into this folder, which is made where it is missing
    folder: Option<PathBuf>,
}

impl Man {
    /// Writes them.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.folder {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut page)?;
                std::io::stdout().write_all(&page)?;
            }
            Some(folder) => {
                let cannot = || format!("cannot write manual pages into {}", folder.display());
                std::fs::create_dir_all(&folder).with_context(cannot)?;
                clap_mangen::generate_to(Cli::command(), &folder).with_context(cannot)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

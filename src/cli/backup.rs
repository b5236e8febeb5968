//! `longhaul backup`: a copy of all jobs, while the server goes on.

use super::connect::Usage;
use super::settings::default_data_dir;
use super::text::print_line;
use crate::store::{BackupError, back_up};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Copy all jobs into a file, while the server goes on
///
/// It runs on the server's machine and reads its data folder; the server need not run. The file has all that was answered before it
/// began, and comes into being when it is whole, checked and on the disk.
///
/// To restore it, make it FOLDER/store/longhaul.db in a new folder, and start a server there.
///
/// It exits with 2 if there is nothing to back up, or if the file is there already.
///
/// Example: longhaul backup jobs-$(date +%F).db
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Backup {
    /// The new file
    file: PathBuf,
    /// Where the jobs are kept [default: longhaul in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, env = "LONGHAUL_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl Backup {
    /// Makes it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let data = match self.data_dir {
            Some(folder) => folder,
            None => default_data_dir()?,
        };
        let backed_up = back_up(&data, &self.file).map_err(|error| match error {
            BackupError::NoStore(_) | BackupError::Exists(_) => Usage(error.to_string()).into(),
            BackupError::Failed { .. } => anyhow::Error::from(error),
        })?;
        let mebibytes = backed_up.bytes as f64 / f64::from(1 << 20);
        print_line(&format!("{}: {} jobs, {mebibytes:.1} MiB", self.file.display(), backed_up.jobs))?;
        Ok(ExitCode::SUCCESS)
    }
}

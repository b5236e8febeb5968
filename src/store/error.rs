//! What can go wrong with a store as a whole.

/// A store's failure, which concerns all that was asked of it in one call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of it has happened, and the next call may succeed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It may have happened or not.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// Something that was stored cannot be read: nobody gets a wrong answer instead.
    #[error("a stored {what} is damaged: {why}")]
    Damaged {
        /// What it is.
        what: &'static str,
        /// How that shows.
        why: String,
    },
}

impl Error {
    /// Whether a commit that ended so may have happened all the same.
    pub fn may_have_committed(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Unavailable(_) | Self::Damaged { .. } => false,
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has it.
    #[error("the data folder {0} is in use by another server")]
    InUse(String),
    /// It was written by a later version.
    #[error("the store has version {found}; this program knows versions up to {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// The folder holds something else, or cannot be used.
    #[error("cannot open the store in {folder}: {why}")]
    Failed {
        /// The data folder.
        folder: String,
        /// What went wrong.
        why: String,
    },
}

/// Why a store could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder has no store in it.
    #[error("there is no store in {0}")]
    NoStore(String),
    /// A backup never takes another file's place.
    #[error("{0} is there already")]
    Exists(String),
    /// It could not be read, or not be written.
    #[error("cannot back up to {file}: {why}")]
    Failed {
        /// The backup.
        file: String,
        /// What went wrong.
        why: String,
    },
}

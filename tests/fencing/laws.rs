//! What must never be, and what must be seen to happen. Where each is looked for is told by `step`.

/// What must never be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// A lease is given of a job that waits and that nobody holds, so at most one is alive.
    OneHolder,
    /// Only the lease that holds the job records anything.
    OneLease,
    /// Only the keeper of the lease that holds the job takes it back.
    OneKeeper,
    /// A job ends once, with one last event, and is the same from then on.
    OneOutcome,
    /// Once the canceller was told, the job does not succeed and no worker hears that it did.
    CancelWins,
    /// Who hears that it succeeded has made the result, and is the only one.
    OneSuccess,
    /// A report that is repeated is answered as it was first, until a later lease has ended.
    SameAnswer,
    /// A worker that fails after the grace period hears that the job was cancelled.
    GraceIsTold,
    /// The output of a job that succeeded is what its attempt wrote, all of it and nothing else.
    WholeOutput,
}

/// All of them.
pub const LAWS: [Law; 9] = [
    Law::OneHolder,
    Law::OneLease,
    Law::OneKeeper,
    Law::OneOutcome,
    Law::CancelWins,
    Law::OneSuccess,
    Law::SameAnswer,
    Law::GraceIsTold,
    Law::WholeOutput,
];

/// What must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    SecondLeaseRefused,
    Success,
    FailureByAttempts,
    CancelAtOnce,
    CancelByWorker,
    CancelByGracePeriod,
    CancelByLease,
    ZombieRefused,
    EarlierKeeperRefused,
    TwoZombiesAndAHolder,
    RepeatAnswered,
    CompletionRefusedForCancel,
    CompletionBeforeItsOutput,
    LeaseOutlivesItsServer,
}

/// All of them.
pub const SIGHTS: [Sight; 14] = [
    Sight::SecondLeaseRefused,
    Sight::Success,
    Sight::FailureByAttempts,
    Sight::CancelAtOnce,
    Sight::CancelByWorker,
    Sight::CancelByGracePeriod,
    Sight::CancelByLease,
    Sight::ZombieRefused,
    Sight::EarlierKeeperRefused,
    Sight::TwoZombiesAndAHolder,
    Sight::RepeatAnswered,
    Sight::CompletionRefusedForCancel,
    Sight::CompletionBeforeItsOutput,
    Sight::LeaseOutlivesItsServer,
];

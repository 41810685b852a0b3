//! What changes while a run goes on, and where it is kept: the state after a step, checkpoints, the log, the run folder.

pub mod checkpoint;
pub mod folder;
pub mod identity;
pub mod log;
pub mod optimizer;
pub mod snapshot;
pub mod watch;

//! The boundary between host and plugin. The only unsafe code of this crate.
//!
//! [`tables`], [`calls`] and what is [`lent`] for one are the wire, [`growth`] how it is read, [`draft`] what is tried and not promised, [`note`] what a host
//! reads before any code runs, [`root`] the frozen root module by which it comes in. The rest is the plugin's side of it: `entry` takes
//! the host's table and gives the plugin's, `vtables` and `hooks` turn the author's traits into functions of the tables, `failure` keeps
//! panics inside, `host` calls back.
#![allow(unsafe_code)]

pub mod borrow;
pub mod calls;
pub mod draft;
pub(crate) mod entry;
pub(crate) mod failure;
pub mod growth;
pub(crate) mod hooks;
pub(crate) mod host;
pub mod lent;
pub(crate) mod log;
pub mod note;
pub mod root;
pub mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod vtables;

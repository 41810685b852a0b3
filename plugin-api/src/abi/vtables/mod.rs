//! From the author's traits to the tables of functions that the host calls: a file for each kind of method, and what they share.

#![allow(clippy::needless_update, reason = "a later minor appends fields")]

mod handles;
mod head_call;
mod method;
mod optimizer;
mod regularizer;
mod scheduler;
mod strategy;
mod task_head;

pub(crate) use self::{
    optimizer::optimizer, regularizer::regularizer, scheduler::scheduler, strategy::strategy, task_head::task_head,
};

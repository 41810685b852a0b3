//! Where the mock host meets the boundary: its table of functions, and calls of the plugin's. The only unsafe code of the mock host.
#![allow(unsafe_code)]

mod hook;
mod instance;
mod table;

pub(crate) use self::{
    instance::{HeadFunction, HeadInputs, Instance, Kind, State, UpdateInputs},
    table::TABLE,
};

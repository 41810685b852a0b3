//! Drafts: extensions that are tried before they are promised.
//!
//! One side asks the other for one by name, `get_extension("ft.run.draft/1")`, and gets a table or null. Nothing here is part of ABI 1:
//! a draft may change or go in any release. Its number then goes up, so that who asks for the old one gets null and never
//! another table. What has proved itself is appended to the tables, and leaves here.
//!
//! Each has a header of its own in `include/draft/`.

pub mod about;
pub mod optimizer;
pub mod run;

//! What a run comes to: evaluation, proof, `result.json` and its page, and what is saved to be used elsewhere.

mod adapter_config;
pub mod calibrated;
pub mod continual;
pub mod evaluate;
pub mod export;
pub mod inputs;
pub mod keys;
pub mod labels;
pub mod masks;
pub mod own_form;
pub mod page;
pub mod plain;
pub mod predictions;
pub mod proof;
pub mod report;
pub mod result;
pub mod sentences;
pub mod worst;

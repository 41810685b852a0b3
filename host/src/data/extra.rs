//! What a row has besides its tokens and its label, where it has any.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// What a row has besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Extra {
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What its loss is multiplied with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<f32>,
    /// The [`digest`] of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<u64>,
    /// The numbers of the labels of words that are cut off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cut: Vec<u32>,
    /// The numbers of its labels, where it has a list of them, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<u32>,
    /// The places of words that the tokenizer makes nothing of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) silent: Vec<u32>,
    /// Its text, or both of a pair, or its words; none where texts are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) texts: Vec<String>,
}

impl Extra {
    /// As it is stored: nothing where it has nothing.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        if *self == Self::default() {
            return Ok(Vec::new());
        }
        serde_json::to_vec(self).map_err(|error| Error::run(format!("cannot keep a row: {error}")))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| Error::run(format!("a row does not read back: {error}")))
    }
}

/// Stands for a group: of two billion groups hardly two have the same.
pub(super) fn digest(group: &str) -> u64 {
    let hash = Sha256::digest(group.as_bytes());
    hash.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let all = Extra {
            id: Some("a\"\n".into()),
            weight: Some(0.1),
            group: Some(u64::MAX),
            cut: vec![3, u32::MAX],
            labels: vec![0, 70_000],
            silent: vec![0, 7],
            texts: vec![String::new(), "b".into()],
        };
        for extra in [all, Extra::default(), Extra { weight: Some(1e-30), ..Extra::default() }] {
            assert_eq!(Extra::from_bytes(&extra.to_bytes().unwrap()).unwrap(), extra);
        }
        assert!(Extra::default().to_bytes().unwrap().is_empty());
        assert_ne!(digest("a"), digest("b"));
    }
}

//! The embedded demo: a tiny vision transformer that was pretrained on the digits 0 to 4, to be adapted to all ten.

/// Its config.json.
pub const CONFIG: &str = include_str!("../../../assets/demo/config.json");
/// Its weights.
pub const WEIGHTS: &[u8] = include_bytes!("../../../assets/demo/model.safetensors");
/// How a run file names it.
pub const NAME: &str = "demo";

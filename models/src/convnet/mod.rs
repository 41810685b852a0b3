//! Convolutional networks, and what is as simple: one implementation, and a table of what they are made of.
//!
//! Inside, a feature map is rows of channels, so hooks, norms and heads for rows serve here too.

mod block;
mod config;
mod inverted;
mod layer;
mod network;
mod norm;
mod plan;
mod resnet;
mod small;

use network::Network;
use plan::Plan;

use crate::LoadError;
use crate::family::{Family, Source};

/// A row of Hugging Face's names, and of ours: its `model_type`, and what it makes of a config.json.
type Row = (&'static str, fn(&Source<'_>) -> Result<Plan, LoadError>);

const ROWS: [Row; 4] = [
    ("resnet", resnet::hugging_face),
    ("mobilenet_v2", inverted::hugging_face),
    ("conv4", small::conv4),
    ("mlp", small::mlp),
];

/// The rows of the table.
pub(crate) const FAMILY: Family = Family {
    model_types: || ROWS.map(|row| row.0).into(),
    architectures: || resnet::architectures().chain(inverted::architectures()).collect(),
    recognise: |weights| resnet::recognise(weights).or_else(|| inverted::recognise(weights)),
    build: |source| {
        let mut plan = plan(source)?;
        plan.norm.keeps_statistics = source.keeps_statistics;
        Ok(Box::new(Network::build(source, &plan)?))
    },
};

fn plan(source: &Source<'_>) -> Result<Plan, LoadError> {
    if let Some((_, plan)) = ROWS.iter().find(|row| Some(row.0) == source.model_type()) {
        return plan(source);
    }
    let name = source.architecture().unwrap_or_default();
    let named = resnet::named(source, name)?;
    let named = if named.is_some() { named } else { inverted::named(source, name)? };
    named.ok_or_else(|| source.setting("architecture", name, "is not known"))
}

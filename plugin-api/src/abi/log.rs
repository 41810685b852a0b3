//! Forwards the plugin's `tracing` to the host.
//!
//! A shared library has its own copy of `tracing` with its own global default, so what it emits is lost unless somebody
//! inside listens. This layer does, and hands events and spans over as text and JSON; a `Dispatch` never crosses.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::{LookupSpan, Registry},
};

use super::host;

/// Makes the forwarding layer this library's default, once.
pub(crate) fn forward() {
    // An error says that there is one already: ours from an earlier connect, or the author's own choice.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(ToHost));
}

struct ToHost;

/// A span's fields as JSON, kept until it is entered.
struct Fields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ToHost {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Collector::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Fields(Value::Object(fields.others).to_string()));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Collector::default();
        event.record(&mut fields);
        send(event.metadata(), 0, &fields.message, &Value::Object(fields.others).to_string());
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        send_span(id, 1, &context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        send_span(id, 2, &context);
    }
}

fn send_span<S: Subscriber + for<'a> LookupSpan<'a>>(id: &span::Id, what: u32, context: &Context<'_, S>) {
    if let Some(span) = context.span(id) {
        let extensions = span.extensions();
        let fields = extensions.get::<Fields>().map_or("{}", |fields| &fields.0);
        send(span.metadata(), what, span.name(), fields);
    }
}

fn send(metadata: &Metadata<'_>, what: u32, message: &str, fields: &str) {
    let level = match *metadata.level() {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    };
    host::log(level, what, metadata.target(), message, fields);
}

#[derive(Default)]
struct Collector {
    message: String,
    others: Map<String, Value>,
}

impl Collector {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().into(), value);
    }
}

impl Visit for Collector {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.into();
        } else {
            self.put(field, value.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

//! What is logged to standard error: for a person warnings as sentences, and on request everything with its time and place.

use std::fmt;
use std::io;

use fthost::{Error, Result};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::errors;

/// The variable with the log's filter, as in `FTHOST_LOG=fthost=debug`.
const LOG_VARIABLE: &str = "FTHOST_LOG";

/// Sends the log to standard error. `-v` goes before the variable.
pub(super) fn to_stderr(verbose: u8) -> Result<()> {
    let variable = std::env::var(LOG_VARIABLE).ok().filter(|value| !value.is_empty());
    let plain = verbose == 0 && variable.is_none();
    let filter = match (verbose, variable) {
        (0, Some(filter)) => EnvFilter::try_new(&filter).map_err(|error| {
            Error::usage(format!("{LOG_VARIABLE}={filter} is no filter: {error}"))
                .with_help("write a level (warn, info, debug, trace) or TARGET=LEVEL, separated by commas")
        })?,
        (0, None) => EnvFilter::new("warn"),
        (1, _) => EnvFilter::new("info"),
        (2, _) => EnvFilter::new("debug"),
        (_, _) => EnvFilter::new("trace"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(errors::colour(&io::stderr()));
    if plain {
        log.event_format(Sentences).init()
    } else {
        log.init()
    }
    Ok(())
}

/// A warning as a person reads it, without the time and the module that it comes from.
struct Sentences;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        write!(out, "{kind}: ")?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

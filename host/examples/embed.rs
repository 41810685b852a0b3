//! The host in a program of one's own: it fine-tunes the demo, says what it hears, stops at a step, and goes on to the end.
//!
//!     cargo run --release -p fthost --example embed -- ./target/release/liblora.so embedded 100
#![allow(clippy::print_stdout, reason = "it shows what is heard")]

use fthost::run::file::RunFile;
use fthost::{Error, Host, Interrupt, Line, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plugin, folder, at] = arguments.as_slice() else {
        return Err(Error::usage("name a plugin, a folder for the run, and a step to stop at"));
    };
    let at = at.parse().unwrap_or(1);
    let interrupt = Interrupt::default();
    let stop = interrupt.clone();
    let host = Host::new().plugin(plugin).out(folder).stopped_by(&interrupt).on_line(move |line| match *line {
        Line::Step { step, loss, .. } if step == at => {
            println!("step {step}: loss {loss:.4}");
            stop.stop();
        }
        Line::Evaluation { task, when, metrics, .. } => println!("{task} {when}: accuracy {:.4}", metrics["accuracy"]),
        _ => {}
    });
    let summary = match host.run(RunFile::demo(&[])?) {
        Err(Error::Interrupted { message, .. }) => {
            println!("{message}");
            Host::new().resume(folder.as_ref())?
        }
        ended => ended?,
    };
    println!("{}", summary.to_text());
    Ok(())
}

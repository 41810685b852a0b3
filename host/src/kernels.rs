//! Which vector instructions the kernels use: the processor's best, or those that `FTHOST_KERNELS` names.

use fthost_autograd::{Instructions, Precision};

use crate::{Error, Result};

/// The variable that names them, as in `FTHOST_KERNELS=avx2`.
const VARIABLE: &str = "FTHOST_KERNELS";

/// Has the kernels of this process use what the variable names, where it is set. Before any of them runs.
///
/// # Errors
/// Where there are no such instructions, or this processor lacks them.
pub fn from_environment() -> Result<()> {
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let named = Instructions::ALL.into_iter().find(|known| known.name() == name);
    if named.is_some_and(Instructions::choose) {
        return Ok(());
    }
    let name = name.to_string_lossy();
    let message = match named {
        Some(_) => format!("{VARIABLE} is {name}, which this processor does not have"),
        None => format!("{VARIABLE} is {name:?}, and there are no such kernels"),
    };
    let here: Vec<&str> =
        Instructions::ALL.into_iter().filter(|known| *known <= Instructions::best()).map(Instructions::name).collect();
    Err(Error::usage(message).with_help(format!("this processor has {}", here.join(", "))))
}

/// Whether the variable names them.
pub fn are_named() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The kernels of products of this precision on the CPU, as a run's identity tells them.
pub fn of(precision: Precision) -> String {
    format!("{} {}", std::env::consts::ARCH, Instructions::in_use().of(precision))
}

/// How a run that began with the kernels `then` goes on here.
pub fn way_on(then: &str) -> String {
    let known = Instructions::ALL.into_iter().find(|known| then == format!("{} {known}", std::env::consts::ARCH));
    match known.filter(|known| *known <= Instructions::best()) {
        Some(known) => format!("set {VARIABLE}={known} to go on with the kernels that it began with"),
        None => format!(
            "this processor has no {then}: go on where it is, or set {VARIABLE}={} to go on here, where the last bits will be others",
            Instructions::in_use()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_depends_on_what_the_processor_has() {
        let here = of(Precision::F32);
        assert!(here.starts_with(std::env::consts::ARCH), "{here}");
        let portable = format!("{} portable", std::env::consts::ARCH);
        assert!(way_on(&portable).starts_with("set FTHOST_KERNELS=portable to go on with"), "{}", way_on(&portable));
        let other = way_on("sparc vis3");
        assert!(other.starts_with("this processor has no sparc vis3") && other.contains("FTHOST_KERNELS="), "{other}");
    }
}

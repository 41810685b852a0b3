//! What single arguments say: values of the run file, and where to compute.

use fthost::Result;
use fthost::run::DeviceChoice;
use fthost::run::file::Override;

/// What the command line sets in a run file: by `--set`, and by the flags that stand for a key.
pub(super) fn overrides(sets: &[String], seed: Option<u64>, threads: Option<usize>) -> Result<Vec<Override>> {
    let mut overrides = sets.iter().map(|set| Override::set(set)).collect::<Result<Vec<_>>>()?;
    overrides.extend(seed.map(|seed| Override::flag("--seed", "train.seed", seed)));
    overrides.extend(threads.map(|threads| Override::flag("--threads", "train.threads", threads)));
    Ok(overrides)
}

/// Reads `cpu`, `cuda` or `cuda:N`.
pub(super) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(DeviceChoice::Cpu),
        None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
        Some(("cuda", number)) => match number.parse() {
            Ok(number) => Ok(DeviceChoice::Cuda(number)),
            Err(_) => Err(format!("{number:?} is no device number; cuda:0 is the first device")),
        },
        _ => Err("a device is cpu, cuda or cuda:N".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let check = |text: &str, expected: Result<DeviceChoice, &str>| {
            assert_eq!(device(text), expected.map_err(str::to_owned), "{text}");
        };
        check("cpu", Ok(DeviceChoice::Cpu));
        check("cuda", Ok(DeviceChoice::Cuda(0)));
        check("cuda:3", Ok(DeviceChoice::Cuda(3)));
        check("cuda:", Err("\"\" is no device number; cuda:0 is the first device"));
        check("cuda:-1", Err("\"-1\" is no device number; cuda:0 is the first device"));
        check("gpu", Err("a device is cpu, cuda or cuda:N"));
        check("cpu:0", Err("a device is cpu, cuda or cuda:N"));
    }
}

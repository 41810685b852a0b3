//! The machine: where a run computes, and the memory that its process took.

use fthost_autograd::Device;

use crate::error::plain;
use crate::{Error, Result, cores};

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The CUDA device with this number.
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number).map_err(|e| {
                let help = if cfg!(feature = "cuda") {
                    "check the driver with nvidia-smi, or use --device cpu"
                } else {
                    "this fthost was built without CUDA: build it with --features cuda, or use --device cpu"
                };
                Error::Usage {
                    message: format!("device cuda:{number} cannot be used: {}", plain(&e)),
                    help: Some(help.into()),
                }
            }),
        }
    }
}

/// The process's peak resident memory: `VmHWM` of Linux's /proc/self/status; 0 where there is none.
pub fn peak_rss_bytes() -> u64 {
    status("VmHWM:")
}

/// The process's resident memory now: `VmRSS`; 0 where there is none.
pub fn rss_bytes() -> u64 {
    status("VmRSS:")
}

/// Has the allocator keep what is free for so long that the next training step takes it up again. It would give it back after a second, and a
/// step of large maps or many tokens is longer: the system clears each page of it anew, up to a third of the step. What
/// `MIMALLOC_PURGE_DELAY` says goes before it.
pub fn keep_free_memory() {
    // `mi_option_purge_delay`, which the crate does not name.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const MILLISECONDS: std::ffi::c_long = 10_000;
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer; an option that there is not is passed over.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS)
    };
}

/// Gives back to the system what is free and the allocator has kept for what comes next, on every thread that works: what is resident
/// afterwards is in use.
pub fn give_back_free_memory() {
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    let give_back = || unsafe { libmimalloc_sys::mi_collect(true) };
    rayon::broadcast(|_| give_back());
    cores::on_each(usize::MAX, give_back);
    give_back();
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

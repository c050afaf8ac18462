//! What the kernel says of the process, by the names that every program gives it.

use std::fmt;
use std::fs;
use std::str::FromStr;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What the kernel counts processor time in, for every program whatever its own clock (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// The places of figures in `/proc/self/stat`, counted from the one behind the name (proc(5)).
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const THREADS: usize = 17;
const START_TICKS: usize = 19;

/// Looks at `/proc/self` whenever somebody looks at the metrics. What cannot be read is not shown.
#[derive(Debug, Default)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name can hold anything, but the figures begin after the last bracket.
        let figures: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let figure = |place: usize| figures.get(place).and_then(|figure| figure.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (figure(USER_TICKS), figure(SYSTEM_TICKS)) {
            let counter = ConstCounter::new((user + system) / TICKS_PER_SECOND);
            let help = "Processor time of the process, in seconds";
            let name = "process_cpu_seconds";
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let started = || Some(boot_time()? + figure(START_TICKS)? / TICKS_PER_SECOND);
        let gauges = [
            ("process_resident_memory_bytes", "Memory that the process holds", status("VmRSS:").map(kibibytes)),
            ("process_virtual_memory_bytes", "Memory that the process reserved", status("VmSize:").map(kibibytes)),
            ("process_start_time_seconds", "When the process started", started()),
            ("process_open_fds", "Files and connections that the process has open", open_files()),
            ("process_max_fds", "How many it may have open", open_files_max()),
            ("process_threads", "Threads of the process", figure(THREADS)),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn kibibytes(number: f64) -> f64 {
    number * 1024.0
}

/// The first figure on the line that begins so.
fn figure_in(file: &str, line: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|candidate| candidate.strip_prefix(line))?;
    f64::from_str(rest.split_whitespace().next()?).ok()
}

fn status(line: &str) -> Option<f64> {
    figure_in("/proc/self/status", line)
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    figure_in("/proc/stat", "btime ")
}

fn open_files() -> Option<f64> {
    let number = u32::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    // The folder itself is open while it is read.
    Some(f64::from(number.saturating_sub(1)))
}

fn open_files_max() -> Option<f64> {
    figure_in("/proc/self/limits", "Max open files")
}

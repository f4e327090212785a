//! The machine that a figure belongs to, and the moment to take it.
//!
//! Reads what Linux tells about itself. Used before every measurement.

use std::path::Path;
use std::time::{Duration, Instant};

use motet_tests::place::build_folder;
use motet_tests::waiting::let_pass;

/// Sectors (512 bytes) written per second at which a disk counts as quiet.
const QUIET_SECTORS: u64 = 512;

/// Longest wait for a quiet disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `/proc/stat` counts in: USER_HZ, which is 100 on every common system.
const TICKS_PER_SECOND: f64 = 100.0;

/// Prints processor, memory, kernel, disk and the moment's load.
pub fn print_facts() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, key: &str| {
        let found = text.lines().find(|line| line.starts_with(key));
        found.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("processor  {} ({cores} cores)", line(&read("/proc/cpuinfo"), "model name"));
    println!("memory     {}", line(&read("/proc/meminfo"), "MemTotal"));
    println!("kernel     {}", read("/proc/sys/kernel/osrelease").trim());
    println!("disk       {}", file_system(&build_folder()));
    println!("load       {}", read("/proc/loadavg").trim());
}

/// Type and options of the file system that holds a folder.
#[must_use]
pub fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let holding = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && folder.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len());
    holding.map_or_else(String::new, |fields| format!("{} ({})", fields[2], fields[3]))
}

/// Waits until other programs leave the disk alone, and says so when they do not.
pub async fn wait_until_quiet() {
    let begun = Instant::now();
    loop {
        let before = sectors_written();
        let_pass(Duration::from_secs(1)).await;
        let written = sectors_written().saturating_sub(before);
        if written <= QUIET_SECTORS {
            return;
        }
        if begun.elapsed() > PATIENCE {
            println!("the disk is not quiet: {} KiB/s are written by others", written / 2);
            return;
        }
    }
}

/// Cores that were busy over a time, whoever used them; the caller's own use is part of it.
pub async fn busy_cores(time: Duration) -> f64 {
    let (begun, before) = (Instant::now(), busy_ticks());
    let_pass(time).await;
    let ticks = busy_ticks().saturating_sub(before);
    ticks as f64 / TICKS_PER_SECOND / begun.elapsed().as_secs_f64()
}

/// What all processors together have spent on anything but idling and waiting for disks, in ticks.
fn busy_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what comes after is part of the first two.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&place| ticks.get(place)).sum()
}

fn sectors_written() -> u64 {
    let stats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let whole_disks = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    whole_disks
        .filter(|fields| fields.len() > 9 && Path::new("/sys/block").join(fields[2]).exists())
        .filter_map(|fields| fields[9].parse::<u64>().ok())
        .sum()
}

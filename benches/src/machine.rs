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
fn file_system(folder: &Path) -> String {
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

fn sectors_written() -> u64 {
    let stats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let whole_disks = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    whole_disks
        .filter(|fields| fields.len() > 9 && Path::new("/sys/block").join(fields[2]).exists())
        .filter_map(|fields| fields[9].parse::<u64>().ok())
        .sum()
}

//! How much memory a process has, as the kernel tells it.
//!
//! Never estimates: where the kernel does not tell, there is no answer. Used by `process` and `keeper`.

/// Bytes of a page where the kernel counts in pages.
const KIB: u64 = 1024;

/// Resident bytes of a process.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(KIB))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_one_that_is_none_has_none() {
        assert!(resident(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(resident(u32::MAX), None);
    }
}

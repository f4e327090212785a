//! Which files the process may read and write, and that it reaches nobody: Landlock.
//!
//! Used by `sandbox`.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use motet_models::child::wire::Rules;

/// The newest version whose rights are named here; older kernels hold what they know.
const NEWEST: ABI = ABI::V6;

/// Where the system's own libraries are, and what they read when they start.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];

/// What engines read to size their threads, and the time zone.
const FACTS: [&str; 9] = [
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/etc/localtime",
    "/usr/share/zoneinfo",
];

/// Devices that are safe to use.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];

/// Lets the process read what it must, and nothing else.
pub(super) fn hold(rules: &Rules) -> Result<(), String> {
    let status = restrict(rules).map_err(|error| error.to_string())?;
    match status {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

fn restrict(rules: &Rules) -> Result<RulesetStatus, RulesetError> {
    let run = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for path in LIBRARIES.iter().map(Path::new).chain(rules.read.iter().map(|path| &**path)) {
        ruleset = allow(ruleset, path, run)?;
    }
    for path in &rules.write {
        ruleset = allow(ruleset, path, AccessFs::from_all(NEWEST) & !AccessFs::Execute)?;
    }
    for path in FACTS {
        ruleset = allow(ruleset, Path::new(path), read)?;
    }
    for path in DEVICES {
        ruleset = allow(ruleset, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// What is not there needs no right.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    let of_file = AccessFs::from_file(NEWEST);
    let access = if path.is_dir() { access } else { access & of_file };
    ruleset.add_rule(PathBeneath::new(opened, access))
}

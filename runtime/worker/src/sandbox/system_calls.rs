//! Which system calls the process may not make: seccomp.
//!
//! A list of what is refused, because engines and their allocators use many others. A refused call fails; it does not
//! end the process. Used by `sandbox`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that no engine needs: other processes, mounts, modules, keys, namespaces, ways around the other layers.
const REFUSED: [i64; 27] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Refuses what no engine needs. `executes` leaves it the right to run programs and start processes.
pub(super) fn filter(executes: bool) -> Result<(), String> {
    // Without its arguments in registers `clone3` cannot be looked into: the C library uses `clone` where it is absent.
    let absent = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    if !executes {
        apply(absent, libc::ENOSYS)?;
    }
    apply(refused(executes)?, libc::EPERM)
}

fn refused(executes: bool) -> Result<Rules, String> {
    let mut rules: Rules = REFUSED.into_iter().map(|call| (call, vec![])).collect();
    // The first argument of `socket` is its family.
    rules.insert(libc::SYS_socket, vec![when(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?]);
    if !executes {
        rules.extend([libc::SYS_execve, libc::SYS_execveat].map(|call| (call, vec![])));
        // Threads, but no processes.
        let thread = libc::CLONE_THREAD as u64;
        rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), 0)?]);
        #[cfg(target_arch = "x86_64")]
        rules.extend([libc::SYS_fork, libc::SYS_vfork].map(|call| (call, vec![])));
    }
    Ok(rules)
}

fn when(argument: u8, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value);
    let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
    rule.map_err(|error| error.to_string())
}

fn apply(rules: Rules, error: i32) -> Result<(), String> {
    let architecture = std::env::consts::ARCH.try_into().map_err(|_| "seccomp is not known here".to_owned())?;
    let refused = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture);
    let program = filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())?;
    apply_filter(&program).map_err(|error| error.to_string())
}

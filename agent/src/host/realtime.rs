//! Whether the kernel is a real-time one, where code with softirqs off can be preempted.

use std::path::Path;

/// `CONFIG_PREEMPT_RT`: only such kernels have the file (kernel/ksysfs.c).
#[must_use]
pub fn is_realtime(root: &Path) -> bool {
    std::fs::read_to_string(root.join("sys/kernel/realtime")).is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_real_time_where_it_says_so() {
        let root = tempfile::tempdir().expect("directory");
        assert!(!is_realtime(root.path()));
        std::fs::create_dir_all(root.path().join("sys/kernel")).expect("create");
        std::fs::write(root.path().join("sys/kernel/realtime"), "1\n").expect("write");
        assert!(is_realtime(root.path()));
    }
}

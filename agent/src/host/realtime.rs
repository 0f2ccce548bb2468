//! Whether the kernel is a real-time one, where code with softirqs off can be preempted.

use std::{fs::read_to_string, path::Path};

/// `CONFIG_PREEMPT_RT`: the kernel's version has the word (init/Makefile and scripts/mkcompile_h, `UTS_VERSION`). Kernels
/// with the patches from before it was in the mainline (Linux 6.12) have a file for it as well.
#[must_use]
pub fn is_realtime(root: &Path) -> bool {
    let words = read_to_string(root.join("proc/sys/kernel/version")).unwrap_or_default();
    words.split_whitespace().any(|word| word == "PREEMPT_RT")
        || read_to_string(root.join("sys/kernel/realtime")).is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_real_time_where_it_says_so() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        assert!(!is_realtime(root.path()));
        std::fs::create_dir_all(root.path().join("sys/kernel"))?;
        std::fs::write(root.path().join("sys/kernel/realtime"), "1\n")?;
        assert!(is_realtime(root.path()));
        Ok(())
    }

    #[test]
    fn a_kernel_is_real_time_where_its_version_has_the_whole_word() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir_all(root.path().join("proc/sys/kernel"))?;
        let version = root.path().join("proc/sys/kernel/version");
        for (told, is) in [
            ("#1 SMP PREEMPT_RT Debian 6.12.57-1 (2025-11-05)\n", true),
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)\n", false),
            ("#1 SMP PREEMPT_RTX\n", false),
        ] {
            std::fs::write(&version, told)?;
            assert_eq!(is_realtime(root.path()), is, "{told}");
        }
        Ok(())
    }
}

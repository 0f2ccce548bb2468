//! Which CPUs may ever be there.

use std::{fs::read_to_string, path::Path};

/// The highest number that a CPU can have while this kernel is up; `None` where it does not tell. Numbers and ranges, in their
/// order (`cpumask_print_to_pagebuf`).
#[must_use]
pub fn highest_possible(root: &Path) -> Option<u32> {
    let text = read_to_string(root.join("sys/devices/system/cpu/possible")).ok()?;
    text.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_possible_cpu_is_the_last_that_is_told() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        assert_eq!(highest_possible(root.path()), None);
        let dir = root.path().join("sys/devices/system/cpu");
        std::fs::create_dir_all(&dir)?;
        for (told, highest) in
            [("0\n", Some(0)), ("0-1\n", Some(1)), ("0-3,8-15\n", Some(15)), ("0,2\n", Some(2)), ("\n", None)]
        {
            std::fs::write(dir.join("possible"), told)?;
            assert_eq!(highest_possible(root.path()), highest, "{told}");
        }
        Ok(())
    }
}

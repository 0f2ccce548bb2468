//! QEMU and the tools that come with it have one version: apt would remove tools of another one, as from backports, and is not
//! let. They are asked for in QEMU's version then.

use std::process::Command;

use super::{candidate, output};

const QEMU: &str = "qemu-system-x86";
const TOOLS: &str = "qemu-utils";

/// These packages, and, where QEMU is one of them, its tools if they are here in another version.
pub(super) fn with_its_tools(packages: &[String]) -> Vec<String> {
    if !packages.iter().any(|package| package == QEMU) {
        return packages.to_vec();
    }
    let here = output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}${Version}", TOOLS]));
    chosen(packages, here.as_deref().and_then(installed), candidate(QEMU).as_deref())
}

/// The version in what dpkg says of a package that is installed.
fn installed(said: &str) -> Option<&str> {
    said.trim().strip_prefix("ii ").map(str::trim)
}

fn chosen(packages: &[String], here: Option<&str>, due: Option<&str>) -> Vec<String> {
    let mut all = packages.to_vec();
    if let (Some(here), Some(due)) = (here, due)
        && here != due
    {
        println!("setup: {TOOLS} {here} cannot be beside {QEMU} {due}: it becomes {due}");
        all.retain(|package| package != TOOLS);
        all.extend(["--allow-downgrades".to_owned(), format!("{TOOLS}={due}")]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_of_another_version_are_asked_for_in_qemus_and_others_are_left_alone() {
        let packages = [QEMU.to_owned(), "strace".to_owned()];
        assert_eq!(chosen(&packages, Some("1:7.2"), Some("1:7.2")), packages);
        assert_eq!(chosen(&packages, None, Some("1:7.2")), packages);
        let other = chosen(&packages, installed("ii 1:10.0~bpo12+1"), Some("1:7.2"));
        assert_eq!(other, [QEMU, "strace", "--allow-downgrades", "qemu-utils=1:7.2"]);
        assert_eq!(installed("rc 1:10.0"), None);
    }
}

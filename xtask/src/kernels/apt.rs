//! apt with package lists of its own under `target/kernels/apt`: other suites than the machine's, which stays as it is.
//!
//! apt proves what it downloads against Debian's signature. Nothing is installed and nothing needs root.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::list::{FLAVOUR, Kernel};
use crate::workspace::shown;

/// Debian's keys, in package `debian-archive-keyring`.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LISTS_STAY_FRESH: Duration = Duration::from_secs(24 * 3600);

/// A package in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One suite's lists.
#[derive(Debug)]
pub(crate) struct Suite {
    home: PathBuf,
    name: &'static str,
}

impl Suite {
    /// Fetches the lists, unless that was done not long ago.
    pub(crate) fn open(home: &Path, kernel: &Kernel) -> Result<Self> {
        let suite = Self { home: home.join(kernel.suite), name: kernel.suite };
        for directory in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.home.join(directory)).context("cannot make a directory for apt")?;
        }
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n",
            kernel.archive, kernel.suite
        );
        fs::write(suite.home.join("sources/kernels.sources"), source).context("cannot write a source for apt")?;
        let stamp = suite.home.join("updated");
        if !is_fresh(&stamp) {
            println!("kernels: fetching the package lists of {}", kernel.suite);
            suite.run(suite.apt("apt-get").args(["update", "-q", "--error-on=any"]))?;
            fs::write(&stamp, "").context("cannot note that the lists were fetched")?;
        }
        Ok(suite)
    }

    /// The newest package whose name begins so.
    pub(crate) fn newest(&self, prefix: &str) -> Result<Package> {
        let listed = self.run(self.apt("apt-cache").arg("dumpavail"))?;
        let fits = |package: &Package| package.name.starts_with(prefix) && package.name.ends_with(FLAVOUR);
        let newest = packages(&listed).filter(fits).max_by(|a, b| by_age(&a.version, &b.version));
        newest.with_context(|| format!("Debian's {} has no package {prefix}…{FLAVOUR}", self.name))
    }

    /// Downloads a package into a directory.
    pub(crate) fn download(&self, package: &Package, directory: &Path) -> Result<()> {
        let mut command = self.apt("apt-get");
        command.args(["download", "-q"]).arg(format!("{}={}", package.name, package.version)).current_dir(directory);
        self.run(&mut command).map(drop)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let home = |name: &str| self.home.join(name).display().to_string();
        let settings = [
            ("Dir::Etc::SourceList", "/dev/null".to_owned()),
            ("Dir::Etc::SourceParts", home("sources")),
            ("Dir::State::Lists", home("lists")),
            ("Dir::Cache", home("cache")),
            // The machine's own packages have no say in what is newest.
            ("Dir::State::Status", "/dev/null".to_owned()),
            ("APT::Architecture", "amd64".to_owned()),
            // apt's own user cannot write here.
            ("APT::Sandbox::User", String::new()),
        ];
        for (key, value) in settings {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let what = format!("the kernels of Debian's {} cannot be had: {}", self.name, shown(command));
        let ran = command.output().with_context(|| what.clone())?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            bail!("{what}:\n{}", said.trim());
        }
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

fn is_fresh(stamp: &Path) -> bool {
    let modified = fs::metadata(stamp).and_then(|about| about.modified());
    modified.is_ok_and(|then| SystemTime::now().duration_since(then).is_ok_and(|age| age < LISTS_STAY_FRESH))
}

/// The packages of stanzas with `Package:` and `Version:`.
fn packages(listed: &str) -> impl Iterator<Item = Package> {
    listed.split("\n\n").filter_map(|stanza| {
        let value =
            |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
        Some(Package { name: value("Package:")?, version: value("Version:")? })
    })
}

/// By the numbers in them: the versions compared here are of one series of one suite and differ in nothing else.
fn by_age(left: &str, right: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(left).cmp(&numbers(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_which_version_is_newest() {
        assert_eq!(by_age("5.10.262-1", "5.10.99-3"), Ordering::Greater);
        assert_eq!(by_age("7.2.9-1~bpo13+1", "7.2.12-1~bpo13+1"), Ordering::Less);
        assert_eq!(by_age("6.1.192-2", "6.1.192-2"), Ordering::Equal);
    }

    #[test]
    fn stanzas_without_a_version_are_no_packages() {
        let listed = "Package: a\nVersion: 1-1\nDepends: b\n\nPackage: c\n\n";
        assert_eq!(packages(listed).collect::<Vec<_>>(), [Package { name: "a".into(), version: "1-1".into() }]);
    }
}

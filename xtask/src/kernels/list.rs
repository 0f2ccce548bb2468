//! The kernels, and where Debian has them.

use anyhow::{Context as _, Result, bail};

use super::KernelsArgs;

/// One kernel series of one suite.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) series: &'static str,
    pub(crate) archive: &'static str,
    pub(crate) suite: &'static str,
    /// Beginnings of the names of the packages that are needed; from 7.0 on the image and the modules are apart.
    pub(crate) packages: &'static [&'static str],
    /// Whether the short form boots it.
    pub(crate) short: bool,
}

/// Ends of every package's name: the build for virtual machines, which has no drivers of real hardware.
pub(crate) const FLAVOUR: &str = "-cloud-amd64";

const DEBIAN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

const KERNELS: [Kernel; 4] = [
    Kernel {
        series: "5.10",
        archive: SECURITY,
        suite: "bullseye-security",
        packages: &["linux-image-5.10."],
        short: true,
    },
    Kernel {
        series: "6.1",
        archive: SECURITY,
        suite: "bookworm-security",
        packages: &["linux-image-6.1."],
        short: false,
    },
    Kernel {
        series: "6.12",
        archive: SECURITY,
        suite: "bookworm-security",
        packages: &["linux-image-6.12."],
        short: false,
    },
    Kernel {
        series: "7.2",
        archive: DEBIAN,
        suite: "trixie-backports",
        packages: &["linux-binary-7.2.", "linux-modules-7.2."],
        short: true,
    },
];

/// The kernels that the command line asks for.
pub(crate) fn chosen(args: &KernelsArgs) -> Result<Vec<&'static Kernel>> {
    let wanted =
        |kernel: &&Kernel| args.only.as_deref().map_or(!args.short || kernel.short, |only| only == kernel.series);
    let chosen: Vec<_> = KERNELS.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.series).collect();
        bail!("--only {}: there are {}", args.only.as_deref().unwrap_or_default(), known.join(", "));
    }
    Ok(chosen)
}

/// The kernel of a series.
pub(crate) fn named(series: &str) -> Result<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.series == series).with_context(|| format!("there is no kernel {series}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(short: bool, only: Option<&str>) -> Vec<&'static str> {
        let args = KernelsArgs { short, only: only.map(str::to_owned) };
        chosen(&args).map(|list| list.iter().map(|kernel| kernel.series).collect()).unwrap_or_default()
    }

    #[test]
    fn the_short_form_has_the_oldest_and_the_newest() {
        assert_eq!(series(true, None), ["5.10", "7.2"]);
        assert_eq!(series(false, None).len(), KERNELS.len());
        assert_eq!(series(true, Some("6.1")), ["6.1"]);
        assert!(series(false, Some("4.19")).is_empty());
    }
}

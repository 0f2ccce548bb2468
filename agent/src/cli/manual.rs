//! Manual pages and shell completions, made from the same definitions that the command line is read by.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::{Cli, Misuse, Outcome, print};

pub(super) const EXAMPLES: &str = "Examples:\n  kvmeter man | man -l -\n  kvmeter man ledger verify | man -l -\n  kvmeter man --dir /usr/local/share/man/man1";
pub(super) const COMPLETION_EXAMPLES: &str = "Examples:\n  \
    kvmeter completions bash > /usr/share/bash-completion/completions/kvmeter\n  \
    kvmeter completions zsh > /usr/local/share/zsh/site-functions/_kvmeter\n  \
    kvmeter completions fish > /etc/fish/completions/kvmeter.fish";

/// What `kvmeter man` takes.
#[derive(clap::Args)]
pub(super) struct Man {
    /// The command [default: kvmeter itself]
    command: Vec<String>,
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Prints the script.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kvmeter", &mut script);
    print(&String::from_utf8(script).context("the script is no text")?)
}

/// Prints one page, or writes all.
pub(super) fn man(asked: &Man) -> anyhow::Result<Outcome> {
    let root = whole();
    if let Some(dir) = &asked.dir {
        write_all(&root, dir)?;
        return Ok(Outcome::Done);
    }
    let mut command = &root;
    for name in &asked.command {
        let under =
            || Misuse(format!("{} has no command {name:?}; see its --help", command.get_name().replace('-', " ")));
        command = command.find_subcommand(name).ok_or_else(under)?;
    }
    print(&page(command)?)
}

/// All commands, each with its names of the whole: `kvmeter-ledger-verify`, called as `kvmeter ledger verify`.
fn whole() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

fn page(command: &Command) -> anyhow::Result<String> {
    let mut text = Vec::new();
    bound(command).render(&mut text)?;
    String::from_utf8(text).context("the page is no text")
}

fn bound(command: &Command) -> Page {
    Page::new(command.clone()).manual("kvmeter")
}

fn write_all(command: &Command, dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(bound(command).get_filename());
    std::fs::write(&path, page(command)?).with_context(|| format!("{} cannot be written", path.display()))?;
    command.get_subcommands().try_for_each(|one| write_all(one, dir))
}

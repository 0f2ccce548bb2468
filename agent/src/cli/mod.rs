//! The command line: what each command is called, takes and ends with. Errors go to standard error as one chain.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing found or a check not passed.

mod annotate;
mod client;
mod doctor;
mod ledger;
mod manual;
mod release;
mod table;
mod top;
mod vms;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::{self, Source},
    cause,
    config::{Config, Overrides, Problems},
    expose::{
        catalog, openapi,
        web::{Web, WebError},
    },
    hooks::Hooks,
    host::HostFacts,
};

/// How a command ended, short of failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Nothing found, or a check not passed.
    Negative,
    /// Something could not be read.
    Unreadable,
}

/// A command was given what it does not take, in a way that only the command itself can see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

const EXAMPLES: &str = "Examples:\n  kvmeter doctor\n  kvmeter run --data-dir /var/lib/kvmeter\n  kvmeter vms\n  \
    kvmeter vm 6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a11\n  kvmeter ledger verify /var/lib/kvmeter/metering\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing found or check not passed.";

/// Per-VM metering for KVM hosts.
#[derive(Parser)]
#[command(name = "kvmeter", version, after_help = EXAMPLES)]
struct Cli {
    /// The agent's Unix socket [default: the configured one]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file [default: /etc/kvmeter/kvmeter.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent
    #[command(after_help = "Example:\n  kvmeter run --listen 127.0.0.1:9973 --data-dir /var/lib/kvmeter")]
    Run(RunArgs),
    /// Lists the VMs of a running agent
    #[command(after_help = "Examples:\n  kvmeter vms\n  kvmeter vms --json | jq '.vms[].vm_id'")]
    Vms {
        /// Print the API's answer
        #[arg(long)]
        json: bool,
    },
    /// Shows one VM, by vm_id, uuid or unique name
    #[command(after_help = "Example:\n  kvmeter vm web-1")]
    Vm {
        /// vm_id, uuid or unique name
        id: String,
        /// Print the API's answer
        #[arg(long)]
        json: bool,
    },
    /// Shows the VMs of a running agent live, at a terminal or for scripts
    #[command(after_help = top::EXAMPLES)]
    Top(top::Top),
    /// Tells what this host can and cannot measure, why, and what to do
    #[command(
        after_help = "Ends with 0 if CPU and ledger work here, else with 3.\n\nExample:\n  kvmeter doctor --json"
    )]
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tells the agent what an orchestrator knows: whose a VM is, its snapshots, why it starts or stops next
    #[command(after_help = annotate::EXAMPLES)]
    Annotate(annotate::Annotate),
    /// Detaches and unpins everything, so that nothing is counted and KVM can be unloaded
    #[command(after_help = release::HELP)]
    Release,
    /// Reads and proves ledgers
    #[command(subcommand, after_help = "Examples:\n  kvmeter ledger show\n  kvmeter ledger verify")]
    Ledger(ledger::Ledger),
    /// Checks the configuration, or prints the default one
    #[command(subcommand, after_help = "Example:\n  kvmeter config default | kvmeter config check /dev/stdin")]
    Config(ConfigCommand),
    /// Lists every metric: name, type, unit, labels, help
    #[command(after_help = "Example:\n  kvmeter catalog | grep cpu")]
    Catalog {
        /// Print docs/metrics.md
        #[arg(long)]
        markdown: bool,
        /// Print docs/openapi.json, what the API answers
        #[arg(long, conflicts_with = "markdown")]
        openapi: bool,
    },
    /// Prints what a shell needs to complete this command's words
    #[command(after_help = manual::COMPLETION_EXAMPLES)]
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of a command, or writes those of all
    #[command(after_help = manual::EXAMPLES)]
    Man(manual::Man),
}

#[derive(Args)]
struct RunArgs {
    /// TCP address for metrics and API, or "off"
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// TLS and passwords for it, in the form of Prometheus' exporters
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// Where the ledger is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Reports every mistake at once; 0 if there is none, else 2
    #[command(after_help = "Example:\n  kvmeter config check /etc/kvmeter/kvmeter.toml")]
    Check {
        /// The file [default: --config, else /etc/kvmeter/kvmeter.toml]
        file: Option<PathBuf>,
    },
    /// Prints the commented default configuration
    #[command(after_help = "Example:\n  kvmeter config default > /etc/kvmeter/kvmeter.toml")]
    Default,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows which of its texts are help and which are mistakes.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match dispatch(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::from(3),
        Ok(Outcome::Unreadable) => ExitCode::from(1),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvmeter: {error:#}");
            let misused = error.downcast_ref::<Problems>().is_some()
                || error.downcast_ref::<WebError>().is_some()
                || error.downcast_ref::<Misuse>().is_some();
            ExitCode::from(if misused { 2 } else { 1 })
        }
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}

fn dispatch(cli: Cli) -> anyhow::Result<Outcome> {
    let overrides = Overrides { socket: cli.socket.clone(), ..Overrides::default() };
    let source = Source { path: cli.config, overrides };
    match cli.command {
        Command::Run(args) => {
            let RunArgs { listen, web_config, data_dir } = args;
            let overrides = Overrides { listen, web_config, data_dir, socket: cli.socket };
            app::run(Source { overrides, ..source }).map(|()| Outcome::Done)
        }
        Command::Vms { json } => vms::list(&socket(&source)?, json),
        Command::Vm { id, json } => vms::one(&socket(&source)?, &id, json),
        Command::Top(shape) => top::run(&socket(&source)?, &shape),
        Command::Doctor { json } => doctor::run(&source, json),
        Command::Annotate(statement) => annotate::run(&socket(&source)?, &statement),
        Command::Release => release::run(&source),
        Command::Ledger(command) => ledger::run(command, &source),
        Command::Config(ConfigCommand::Default) => print(Config::default_toml()),
        Command::Config(ConfigCommand::Check { file }) => {
            check(Source { path: file.or(source.path.clone()), ..source })
        }
        Command::Catalog { markdown: true, .. } => print(&catalog::markdown()),
        Command::Catalog { openapi: true, .. } => print(&format!("{:#}\n", openapi::document())),
        Command::Catalog { .. } => print(&catalog_table()),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man(man) => manual::man(&man),
    }
}

/// Writes to standard output, where a closed pipe is an error and not a panic.
fn print(text: &str) -> anyhow::Result<Outcome> {
    use std::io::Write as _;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

fn socket(source: &Source) -> anyhow::Result<PathBuf> {
    if let Some(socket) = &source.overrides.socket {
        return Ok(socket.clone());
    }
    Ok(source.load()?.0.socket)
}

fn check(source: Source) -> anyhow::Result<Outcome> {
    let (config, warnings) = source.load()?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    Web::open(config.web_config.as_deref())?;
    // What depends on the host, and on who asks, is no mistake in the file.
    for error in Hooks::check(&config.hooks, &HostFacts::gather(Path::new("/"))) {
        eprintln!("warning: here and now {}", cause::chain(&error));
    }
    let default = Path::new(crate::config::DEFAULT_PATH);
    let path = source.path.as_deref().unwrap_or(default);
    let text = if path.exists() { "is a good configuration" } else { "is not there; the defaults are used" };
    print(&format!("{} {text}\n", path.display()))
}

fn catalog_table() -> String {
    let rows = catalog::all().map(|metric| {
        let labels = metric.labels.join(",");
        vec![
            metric.name.to_owned(),
            metric.kind.as_str().to_owned(),
            metric.unit.to_owned(),
            labels,
            metric.help.to_owned(),
        ]
    });
    table::render(&["METRIC", "TYPE", "UNIT", "LABELS", "HELP"], rows.collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}

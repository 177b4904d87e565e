//! `lotlog completions` and `lotlog man`: made from the same definitions as `--help`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap_complete::aot::{Shell, generate};

use crate::failure::Failure;
use crate::{command, hooks};

/// Print a completion script for a shell, for instance: lotlog completions bash > /etc/bash_completion.d/lotlog
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: KnownShell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Print a man page (roff), for instance: lotlog man lotlog-send | man -l -
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// lotlog, lotlogd, or lotlog-COMMAND
    #[arg(value_name = "PAGE", default_value = "lotlog")]
    page: String,
    /// Write all pages, each to a file of its name in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    all: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command(), "lotlog", &mut script);
    if let Some(mut daemon) = hooks::lotlogd_command() {
        generate(shell, &mut daemon, "lotlogd", &mut script);
    }
    print(&script)
}

pub fn man(args: &ManArgs) -> Result<(), Failure> {
    match &args.all {
        Some(directory) => all_pages(directory),
        None => print(&page(&args.page)?),
    }
}

fn page(name: &str) -> Result<Vec<u8>, Failure> {
    let page = match name {
        "lotlog" => Some(command()),
        "lotlogd" => hooks::lotlogd_command(),
        // `build` gives the commands their full names and inherited parts.
        other => other.strip_prefix("lotlog-").and_then(|name| {
            let mut whole = command();
            whole.build();
            let found = whole.find_subcommand(name)?.clone();
            Some(found.name(other.to_owned()))
        }),
    };
    let Some(page) = page else {
        return Err(Failure::usage(format!("no page `{name}`: lotlog, lotlogd, or lotlog-COMMAND")));
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|error| Failure::output(&error))?;
    Ok(text)
}

fn all_pages(directory: &Path) -> Result<(), Failure> {
    let whole = command();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let commands = commands.map(|command| format!("lotlog-{}", command.get_name()));
    for name in ["lotlog".to_owned(), "lotlogd".to_owned()].into_iter().chain(commands) {
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page(&name)?)
            .map_err(|error| Failure::io(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn print(text: &[u8]) -> Result<(), Failure> {
    std::io::stdout().write_all(text).map_err(|error| Failure::output(&error))
}

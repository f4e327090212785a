//! `motet config`: the settings that a server would have, and the file that explains them all.
//!
//! Never starts anything. Used by the command line; `serve` and `models fetch` read their settings here too.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use motet_config::{DEFAULT_FILE, Overrides, Settings};
use serde_json::{Value, json};

use super::Context;
use super::failure::{CliError, CliResult};
use super::output::Output;
use super::serve::ServeArgs;

/// Arguments of `motet config`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet config default > motet.yaml          every setting with its explanation and its default
  motet config check --config motet.yaml     what is in effect, and where each value comes from
  MOTET__HTTP__ADDRESS=0.0.0.0:80 motet config check

The command line wins over the environment, which wins over the file, which wins over the defaults.")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Check the settings, and show what is in effect.
    Check {
        /// The file of settings.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the file that explains every setting.
    Default,
}

/// Does what was asked.
pub(crate) fn execute(context: &Context, args: ConfigArgs) -> CliResult {
    match args.command {
        ConfigCommand::Check { config } => {
            let settings = settings(&ServeArgs { config, ..ServeArgs::default() })?;
            show(&context.output, &settings)
        }
        ConfigCommand::Default if context.output.is_json() => context.output.json(&json!({"file": DEFAULT_FILE})),
        ConfigCommand::Default => context.output.line(DEFAULT_FILE),
    }
}

fn show(output: &Output, settings: &Settings) -> CliResult {
    let rows = settings.effective().rows;
    if output.is_json() {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                let value = Some(&row.value).filter(|value| !value.is_empty());
                json!({"key": row.key, "environment": row.environment_name, "value": value, "origin": row.origin.to_string()})
            })
            .collect();
        return output.json(&json!({"settings": rows}));
    }
    let rows = rows.into_iter().map(|row| [row.key.to_owned(), row.value, row.origin.to_string()]).collect();
    output.table(["setting", "value", "from"], &[], rows)
}

/// The settings of a server with these arguments, in this environment.
pub(crate) fn settings(args: &ServeArgs) -> CliResult<Settings> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let overrides = Overrides::new()
        .set("data.folder", "--data", path(&args.data))
        .set("resources.folder", "--resources", path(&args.resources))
        .set("http.address", "--http", args.http.map(|address| address.to_string()))
        .set("grpc.address", "--grpc", args.grpc.map(|address| address.to_string()))
        .set("admin.address", "--admin", args.admin.map(|address| address.to_string()));
    // Names and values that are no text cannot be settings.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Settings::load(args.config.as_deref(), environment, overrides).map_err(|problems| {
        let count = problems.len();
        let words = if count == 1 { "a mistake".to_owned() } else { format!("{count} mistakes") };
        CliError::usage(format!("the settings have {words}"))
            .with_details(problems.iter().map(ToString::to_string).collect())
            .advise("see every setting with its explanation: motet config default")
    })
}

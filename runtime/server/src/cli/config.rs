//! `motet config`: the settings that a server would have, and the file that explains them all.
//!
//! Never starts anything.

use motet_server::settings::Settings;

use super::failure::CliResult;
use super::serve::ServeArgs;

/// The settings of a server with these arguments.
pub(crate) fn settings(args: &ServeArgs) -> CliResult<Settings> {
    let mut settings = Settings::default();
    if let Some(data) = &args.data {
        settings.data.folder.clone_from(data);
    }
    if let Some(resources) = &args.resources {
        settings.resources.folder = Some(resources.clone());
    }
    if let Some(http) = args.http {
        settings.http.address = http;
    }
    if let Some(admin) = args.admin {
        settings.admin.address = admin;
    }
    Ok(settings)
}

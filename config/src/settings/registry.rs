//! The settings of the schema registry that records are decoded by.
//!
//! Never connects and never reads a password's file before it is asked for. Used by the server's bootstrap.

use std::path::PathBuf;

use crate::secret::Secret;

/// The schema registry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegistrySettings {
    /// Its URL; no schemas can be had where it is empty.
    pub url: String,
    /// Who asks.
    pub user: String,
    /// Password of the user; a bearer token where there is none.
    pub password: Option<Secret>,
    /// A file that holds it instead.
    pub password_file: Option<PathBuf>,
    /// The authority that signed its certificate (PEM); the system's where none is given.
    pub authority: Option<PathBuf>,
}

impl RegistrySettings {
    /// Whether there is a registry to ask.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// The password or token, wherever it stands.
    ///
    /// # Errors
    /// When both are given, or the file cannot be read.
    pub fn password(&self) -> Result<Option<Secret>, String> {
        Secret::resolve(self.password.clone(), self.password_file.as_deref())
    }
}

/// Finds slips in the URL of a registry. What it says of a user must not be shown, so that it is refused.
pub(crate) fn check_registry(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(place) = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).filter(|place| !place.is_empty()) else {
        return Err("this is no URL of a schema registry; write http://host:8081 or https://host".to_owned());
    };
    if place.contains('@') {
        return Err("the URL names a user; put it into registry.user, and its password into registry.password or \
                    registry.password_file"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_in_urls_are_told_without_what_they_hide() {
        for (text, words) in [
            ("registry:8081", "http://host:8081"),
            ("ftp://registry", "http://host:8081"),
            ("https://", "http://host:8081"),
            ("https://u:hunter2@registry", "registry.user"),
        ] {
            let found = check_registry(text).unwrap_err();
            assert!(found.contains(words) && !found.contains("hunter2"), "{found}");
        }
        for fine in ["http://127.0.0.1:8081", "https://registry.example.org/apis/ccompat/v7", "https://r/a@b"] {
            assert_eq!(check_registry(fine), Ok(()), "{fine}");
        }
    }
}

//! Passwords from a file in the form of libpq: `host:port:database:user:password`, `*` for anything.
//!
//! Never logs a line of the file. Used by the options when a URL names a file.

use std::path::Path;

use sqlx::postgres::PgConnectOptions;

use crate::StoreError;

/// Takes the password of the first line that fits.
pub(super) fn apply(options: PgConnectOptions, file: &Path) -> Result<PgConnectOptions, StoreError> {
    let refused = |why: String| StoreError::Refused(format!("the password file {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    refuse_open(file).map_err(refused)?;
    let port = options.get_port().to_string();
    let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let host = if options.get_socket().is_some() { "localhost" } else { options.get_host() };
    let wanted = [host, &port, &database, options.get_username()];
    let found = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password(line, wanted));
    Ok(match found {
        Some(found) => options.password(&found),
        None => options,
    })
}

#[cfg(unix)]
fn refuse_open(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err("others may read it; do `chmod 600` on it".to_owned()) }
}

#[cfg(not(unix))]
fn refuse_open(_file: &Path) -> Result<(), String> {
    Ok(())
}

/// The password of a line that fits; `\:` and `\\` stand for the characters themselves.
fn password(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.trim_end_matches('\r').chars();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut()?;
        match letter {
            '\\' => field.extend(letters.next()),
            ':' => fields.push(String::new()),
            _ => field.push(letter),
        }
    }
    let (password, place) = fields.split_last()?;
    let fits = place.len() == 4 && place.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
    fits.then(|| password.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_fits_gives_the_password() {
        let wanted = ["db", "5432", "motet", "ann"];
        let cases = [
            ("db:5432:motet:ann:secret", Some("secret")),
            ("*:*:*:*:any", Some("any")),
            ("db:*:motet:ann:a\\:b\\\\c", Some("a:b\\c")),
            ("other:5432:motet:ann:secret", None),
            ("db:5432:motet:ann", None),
            ("db:5432:motet:ann:secret\r", Some("secret")),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(password(line, wanted).as_deref(), expected, "{line}");
        }
    }
}

//! What the address of an artefact says, checked before anything is started.
//!
//! Never touches disk or network. Used by `source`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use motet_engine::failure::Failure;
use reqwest::Url;

use crate::failure::invalid;

/// One place that may hold an artefact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A folder or archive on this machine.
    File(PathBuf),
    /// A file, an archive, or, with a trailing slash, a folder of files.
    Web(Url),
    /// A wheel that pip downloads.
    Pypi {
        /// Name of the distribution.
        name: String,
        /// Its exact version.
        version: String,
        /// The Python that the wheel must be for, such as `3.11`, when it is not the one that fetches.
        python: Option<String>,
    },
}

impl Place {
    /// Reads `file:PATH`, `https://..` or `pypi:NAME==VERSION[;python=X.Y]`.
    pub(super) fn parse(uri: &str) -> Result<Self, Failure> {
        let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
        match scheme {
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(invalid(format!("source '{uri}' names no path")));
                }
                Ok(Self::File(path.into()))
            }
            "https" | "http" => {
                let url = Url::parse(uri).map_err(|error| invalid(format!("source '{uri}' is no URL: {error}")))?;
                if !is_allowed(&url) {
                    return Err(invalid(format!("source '{uri}' must be https")));
                }
                Ok(Self::Web(url))
            }
            "pypi" => Self::pypi(uri, rest),
            "builtin" => Err(invalid(format!("source '{uri}' is part of the program and is not fetched"))),
            _ => Err(invalid(format!(
                "source '{uri}' is not understood; it must be file:PATH, https://.. or pypi:NAME==VERSION"
            ))),
        }
    }

    fn pypi(uri: &str, rest: &str) -> Result<Self, Failure> {
        // Both become arguments of a program: they must not be able to look like options or paths.
        let is_word = |text: &str, extra: &[u8]| {
            text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
                && text.len() <= 100
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        let (rest, python) = match rest.split_once(";python=") {
            Some((rest, python)) => (rest, Some(python)),
            None => (rest, None),
        };
        match rest.split_once("==") {
            Some((name, version))
                if is_word(name, b"-_.")
                    && is_word(version, b"-_.+!")
                    && python.is_none_or(|python| is_word(python, b".")) =>
            {
                let python = python.map(str::to_owned);
                Ok(Self::Pypi { name: name.to_owned(), version: version.to_owned(), python })
            }
            _ => Err(invalid(format!("source '{uri}' must be pypi:NAME==VERSION with an exact version"))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            // A query may hold a signature that grants access.
            Self::Web(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
            Self::Pypi { name, version, python: None } => write!(f, "pypi:{name}=={version}"),
            Self::Pypi { name, version, python: Some(python) } => write!(f, "pypi:{name}=={version};python={python}"),
        }
    }
}

/// Whether a URL may be asked: https everywhere, plain http on this machine only.
pub(super) fn is_allowed(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

/// Whether a URL names this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the name is a path that stays below where it is put.
pub(super) fn stays_inside(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(|component| matches!(component, Component::Normal(_)))
}

/// Whether the name is that of an archive that can be unpacked.
pub(super) fn is_archive(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("zip") || extension.eq_ignore_ascii_case("whl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let cases = [
            ("file:models/a", Ok("file:models/a")),
            ("file:///models/a", Ok("file:/models/a")),
            ("file:", Err("names no path")),
            ("https://host/a.zip?key=secret", Ok("https://host/a.zip")),
            ("http://host/a.zip", Err("must be https")),
            ("http://127.0.0.1:1/a", Ok("http://127.0.0.1:1/a")),
            ("http://[::1]:1/a", Ok("http://[::1]:1/a")),
            ("http://127.0.0.1.host/a", Err("must be https")),
            ("pypi:a-model==0.1.0", Ok("pypi:a-model==0.1.0")),
            ("pypi:a-model", Err("exact version")),
            ("pypi:--index-url==1", Err("exact version")),
            ("pypi:a==1 b", Err("exact version")),
            ("pypi:a==-r", Err("exact version")),
            ("builtin:a", Err("not fetched")),
            ("s3://a", Err("not understood")),
            ("a", Err("not understood")),
        ];
        for (uri, expected) in cases {
            let read = Place::parse(uri).map(|place| place.to_string()).map_err(|failure| failure.message);
            match (&read, expected) {
                (Ok(shown), Ok(expected)) => assert_eq!(shown, expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{uri}: {message}"),
                _ => panic!("{uri}: {read:?}"),
            }
        }
    }

    #[test]
    fn names_stay_inside() {
        for (name, inside) in [
            ("a", true),
            ("a/b.json", true),
            ("", false),
            ("../a", false),
            ("a/../b", false),
            ("/a", false),
            ("./a", false),
        ] {
            assert_eq!(stays_inside(name), inside, "{name}");
        }
    }
}

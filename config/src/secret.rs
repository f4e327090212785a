//! Secrets: text that never shows itself.
//!
//! Never logs, prints or serialises what it holds. Used by settings that carry passwords and keys.

use std::fmt;
use std::path::Path;

/// Longest secret in bytes; a larger file is surely the wrong one.
const MAX_BYTES: u64 = 64 << 10;

/// A text that prints as `[redacted]`. It comes inline or from a file, such as a mounted Kubernetes secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret of a setting that may be given inline (`password`) or as a file (`password_file`), not both. One line
    /// end at the end of a file is left out, since editors add it.
    pub fn resolve(inline: Option<Self>, file: Option<&Path>) -> Result<Option<Self>, String> {
        match (inline, file) {
            (Some(_), Some(_)) => Err("it is given inline and as a file; keep one of them".to_owned()),
            (inline, None) => Ok(inline),
            (None, Some(path)) => Self::read(path).map(Some),
        }
    }

    fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let failed = |error: std::io::Error| format!("cannot read {shown}: {error}");
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_BYTES {
            return Err(format!("{shown} has {size} bytes; a secret has at most {MAX_BYTES}"));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if text.is_empty() {
            return Err(format!("{shown} is empty"));
        }
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?} {:#?}", Some(&secret), [&secret]).matches("hunter2").count(), 0);
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_comes_inline_or_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (content, expected) in
            [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("a b\r\n", "a b"), ("a\n\n", "a\n")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Secret::resolve(None, Some(&path)).unwrap().unwrap().expose(), expected);
        }
        let inline = Some(Secret::new("x"));
        assert_eq!(Secret::resolve(inline.clone(), None), Ok(inline.clone()));
        assert_eq!(Secret::resolve(None, None), Ok(None));
        assert!(Secret::resolve(inline, Some(&path)).unwrap_err().contains("keep one"));
        std::fs::write(&path, "\n").unwrap();
        assert!(Secret::resolve(None, Some(&path)).unwrap_err().contains("is empty"));
        std::fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        assert!(Secret::resolve(None, Some(&path)).unwrap_err().contains("at most"));
        std::fs::remove_file(&path).unwrap();
        assert!(Secret::resolve(None, Some(&path)).unwrap_err().contains("cannot read"));
    }
}

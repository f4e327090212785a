//! The URL of a store, which may hold a password and never shows it.
//!
//! Only looks for what must be hidden; what the URL means is the store's affair. Used by the settings.

use std::fmt;

/// What stands where a password was.
const HIDDEN: &str = "[redacted]";

/// Where runs are remembered: `sqlite:`, `memory:`, `postgres://user:password@host/database`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The URL itself, password included: for the one call that opens the store.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn redacted(&self) -> String {
        let (base, query) = self.0.split_once('?').map_or((self.0.as_str(), None), |(base, query)| (base, Some(query)));
        let mut shown = match base.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
            Some((scheme, (user, place))) => {
                let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:{HIDDEN}"));
                format!("{scheme}://{user}@{place}")
            }
            None => base.to_owned(),
        };
        for (place, part) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            shown.push(if place == 0 { '?' } else { '&' });
            match part.split_once('=') {
                Some((name, _)) if name.eq_ignore_ascii_case("password") => shown.push_str(&format!("{name}={HIDDEN}")),
                _ => shown.push_str(part),
            }
        }
        shown
    }
}

impl From<&str> for StoreUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for StoreUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows() {
        for (url, shown) in [
            ("sqlite:", "sqlite:"),
            ("sqlite:/var/lib/motet", "sqlite:/var/lib/motet"),
            ("memory:", "memory:"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@h:5432/d?sslmode=require", "postgres://u@h:5432/d?sslmode=require"),
            ("postgres://u:hunter2@h/d", "postgres://u:[redacted]@h/d"),
            ("postgresql://u:hunt@er2:x@h/d?a=b", "postgresql://u:[redacted]@h/d?a=b"),
            ("postgres://h/d?password=hunter2&user=u", "postgres://h/d?password=[redacted]&user=u"),
            ("postgres://u:@h/d", "postgres://u:[redacted]@h/d"),
        ] {
            let url = StoreUrl::from(url);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }
}

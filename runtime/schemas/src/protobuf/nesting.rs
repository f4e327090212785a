//! How deep the text of a `.proto` file goes, before anything recursive reads it.
//!
//! Knows brackets, texts and comments, and nothing else of the language. Used by the compiler of schemas.

/// Brackets within brackets at most.
const MAX_DEPTH: usize = 64;

/// Refuses a text that goes too deep.
pub(super) fn check(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            b'"' | b'\'' => at = end_of_text(bytes, at, byte),
            b'/' if bytes.get(at + 1) == Some(&b'/') => at = end_at(bytes, at + 2, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = end_at(bytes, at + 2, b"*/"),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("it is more than {MAX_DEPTH} levels deep"));
        }
        at += 1;
    }
    Ok(())
}

/// Where a quoted text ends; a line's end ends it too, so that no slip hides the rest.
fn end_of_text(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\n' => return at,
            byte if byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The last byte of what ends a comment.
fn end_at(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(end.len()).position(|part| part == end).map_or(bytes.len(), |found| from + found + end.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded_where_it_counts() {
        let deep = |open: &str, close: &str| open.repeat(MAX_DEPTH + 1) + &close.repeat(MAX_DEPTH + 1);
        for (text, fine) in [
            (deep("{", "}"), false),
            (deep("[", "]"), false),
            (format!("// {}\nmessage A {{}}", deep("{", "")), true),
            (format!("/* {} */ message A {{}}", deep("{", "")), true),
            (format!("/* */ {}", deep("{", "")), false),
            (format!("// x\n{}", deep("{", "")), false),
            (format!("option a = \"{}\";", deep("{", "")), true),
            (format!("option a = \"\\\"\"; {}", deep("{", "")), false),
            (format!("option a = '\n{}", deep("{", "")), false),
            ("{}".repeat(1_000), true),
            ("/".to_owned(), true),
            ("\"".to_owned(), true),
        ] {
            assert_eq!(check(&text).is_ok(), fine, "{text}");
        }
    }
}

//! The tokens of CEL, as far as they are needed before the real parser sees a source.
//!
//! Finds where an expression ends inside a template, measures how deep a source will nest, so that the parser's
//! recursion is bounded, and finds where a reference stands for diagnostics. Never judges grammar: the parser does.

use super::ExpressionError;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Identifier,
    Number,
    Text,
    Symbol,
}

/// One token, as a range of bytes of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn text<'s>(&self, source: &'s str) -> &'s str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

const SYMBOLS: [&str; 6] = ["&&", "||", "==", "!=", "<=", ">="];

/// The deepest nesting of brackets and right-hand sides that the parser is asked to follow. Each level costs it
/// about ten stack frames.
const MAX_BRACKETS: usize = 24;
/// The longest chain of operators and selections inside one pair of brackets and between commas, `&&`, `||`, which
/// become one branch of the syntax tree.
const MAX_CHAIN: usize = 120;

/// Reads the next token at or after `from`; none at the end.
fn next_token(source: &str, from: usize) -> Result<Option<Token>, ExpressionError> {
    let bytes = source.as_bytes();
    let mut start = from;
    loop {
        match bytes.get(start) {
            None => return Ok(None),
            Some(b' ' | b'\t' | b'\r' | b'\n' | 0x0C) => start += 1,
            Some(b'/') if bytes.get(start + 1) == Some(&b'/') => {
                start += source[start..].find('\n').unwrap_or(source.len() - start);
            }
            Some(_) => break,
        }
    }
    let rest = &bytes[start..];
    let (kind, len) = if let Some(prefix) = text_prefix(rest) {
        (Kind::Text, text_length(rest, prefix).ok_or_else(|| ExpressionError::at(start, "this text has no end quote"))?)
    } else if rest[0].is_ascii_alphabetic() || rest[0] == b'_' {
        (Kind::Identifier, rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count())
    } else if rest[0].is_ascii_digit() {
        (Kind::Number, rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'.').count())
    } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(symbol.as_bytes())) {
        (Kind::Symbol, symbol.len())
    } else {
        (Kind::Symbol, source[start..].chars().next().map_or(1, char::len_utf8))
    };
    Ok(Some(Token { kind, start, end: start + len }))
}

/// The length of `r`, `b` and the like before a quote, when a text starts here.
fn text_prefix(rest: &[u8]) -> Option<usize> {
    let letters = rest.iter().take(2).take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).count();
    matches!(rest.get(letters), Some(b'"' | b'\'')).then_some(letters)
}

fn text_length(rest: &[u8], prefix: usize) -> Option<usize> {
    let raw = rest[..prefix].iter().any(|b| matches!(b, b'r' | b'R'));
    let quote = *rest.get(prefix)?;
    let triple = rest.get(prefix..prefix + 3) == Some(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    let mut place = prefix + width;
    while place < rest.len() {
        if rest[place] == b'\\' && !raw {
            place += 2;
        } else if rest[place] == quote && (!triple || rest.get(place..place + 3) == Some(&[quote; 3])) {
            return Some(place + width);
        } else {
            place += 1;
        }
    }
    None
}

/// All tokens of a source.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut from = 0;
    while let Some(token) = next_token(source, from)? {
        from = token.end;
        tokens.push(token);
    }
    Ok(tokens)
}

/// The offset of the `}` that closes an expression which starts at `from`; braces inside it are balanced.
pub(super) fn closing_brace(source: &str, from: usize) -> Result<Option<usize>, ExpressionError> {
    let mut depth = 0usize;
    let mut place = from;
    while let Some(token) = next_token(source, place)? {
        match token.text(source) {
            "{" if token.kind == Kind::Symbol => depth += 1,
            "}" if token.kind == Kind::Symbol && depth == 0 => return Ok(Some(token.start)),
            "}" if token.kind == Kind::Symbol => depth -= 1,
            _ => {}
        }
        place = token.end;
    }
    Ok(None)
}

/// Refuses a source whose syntax tree would be so deep that parsing it endangers the stack. Brackets that do not
/// match are refused as well, because they read best when told here.
pub(super) fn check_nesting(source: &str, tokens: &[Token]) -> Result<(), ExpressionError> {
    let mut open: Vec<(&str, usize, usize)> = Vec::new();
    let mut chain = 0usize;
    let mut ternaries = 0usize;
    for token in tokens.iter().filter(|token| token.kind == Kind::Symbol) {
        let text = token.text(source);
        match text {
            "(" | "[" | "{" => {
                open.push((text, token.start, chain + 1));
                chain = 0;
            }
            ")" | "]" | "}" => match open.pop() {
                Some((opener, _, before)) if matches!((opener, text), ("(", ")") | ("[", "]") | ("{", "}")) => {
                    chain = before;
                }
                _ => return Err(ExpressionError::at(token.start, format!("this '{text}' closes nothing"))),
            },
            "," | "&&" | "||" => chain = 0,
            "?" => {
                chain = 0;
                ternaries += 1;
            }
            _ => chain += 1,
        }
        let prefix_run = open.len() + ternaries > MAX_BRACKETS;
        if prefix_run || chain > MAX_CHAIN {
            return Err(ExpressionError::at(token.start, "the expression is nested too deeply; split it"));
        }
    }
    match open.pop() {
        Some((opener, start, _)) => Err(ExpressionError::at(start, format!("this '{opener}' is never closed"))),
        None => Ok(()),
    }
}

/// Where an identifier that stands alone (not after a dot) is found in a source.
pub(crate) fn find_identifier(source: &str, name: &str) -> Option<usize> {
    let tokens = tokens(source).ok()?;
    let place = (0..tokens.len()).find(|&at| {
        let after_dot = at > 0 && tokens[at - 1].text(source) == ".";
        tokens[at].kind == Kind::Identifier && tokens[at].text(source) == name && !after_dot
    })?;
    Some(tokens[place].start)
}

/// Where `root.member` or `root["member"]` is found in a source: the offset of the member.
pub(crate) fn find_reference(source: &str, root: &str, member: &str) -> Option<usize> {
    let tokens = tokens(source).ok()?;
    let texts: Vec<&str> = tokens.iter().map(|token| token.text(source)).collect();
    (0..texts.len()).find_map(|at| {
        let alone = texts[at] == root && (at == 0 || texts[at - 1] != ".");
        let member_at = texts.get(at + 2).filter(|_| alone)?;
        let dotted = texts[at + 1] == "." && *member_at == member;
        let indexed = texts[at + 1] == "[" && member_at.trim_matches(['"', '\'']) == member;
        (dotted || indexed).then(|| tokens[at + 2].start)
    })
}

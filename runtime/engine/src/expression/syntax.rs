//! CEL's syntax trees: parses sources, bounds trees, and turns them into what the evaluator runs.
//!
//! Every longest member path becomes a slot, patterns of `matches` are compiled once, and ranges and addends are
//! wrapped so that the order of maps never shows. Never evaluates. Used by plans and the evaluator.

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::functions;
use super::path::{Path, Segment};
use super::{ExpressionError, MAX_DEPTH};

/// Gives the elements of a list as they are and the keys of a map in order.
pub(super) const ORDERED: &str = "@ordered";
/// Refuses maps on the right of `+`.
pub(super) const ADDEND: &str = "@addend";
/// Matches a text against a compiled pattern by its number.
pub(super) const MATCHES: &str = "@matches";

const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
/// Compiled size of one pattern of `matches`.
const MAX_PATTERN: usize = 256 * 1024;

/// Parses a source whose nesting has been checked, and bounds the tree.
pub(super) fn parse(source: &str) -> Result<IdedExpr, ExpressionError> {
    let tree = ::cel::parser::Parser::default().parse(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else { return ExpressionError::new("this is no expression") };
        let message = first.msg.lines().next().unwrap_or_default().replace("Syntax error: ", "");
        ExpressionError { message: syntax_words(&message), offset: offset_of(source, first.pos) }
    })?;
    if depth(&tree, 0) > MAX_DEPTH {
        return Err(ExpressionError::new(format!("the expression is more than {MAX_DEPTH} levels deep; split it")));
    }
    Ok(tree)
}

/// The parser's words without the names of its rules and tokens.
fn syntax_words(message: &str) -> String {
    let quoted = |text: &str| {
        let inner = text.split(" expecting ").next().unwrap_or_default().trim().trim_matches('\'').trim();
        match inner {
            "<EOF>" | "" => "the expression ends too early".to_owned(),
            "=" => "'=' is no operator; did you mean '=='?".to_owned(),
            "&" | "|" => format!("'{inner}' is no operator; did you mean '{inner}{inner}'?"),
            other => format!("'{}' does not fit here", super::wording::shorten(other, 40)),
        }
    };
    let openings =
        ["token recognition error at: ", "mismatched input ", "extraneous input ", "no viable alternative at input "];
    match openings.iter().find_map(|opening| message.strip_prefix(opening)) {
        Some(rest) => quoted(rest),
        None => super::wording::shorten(message, 200),
    }
}

/// The byte offset of a line and column that both count from 1 (columns in characters).
fn offset_of(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.saturating_sub(1);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
}

fn depth(expression: &IdedExpr, above: usize) -> usize {
    let here = above + 1;
    if here > MAX_DEPTH {
        return here;
    }
    children(expression).into_iter().map(|child| depth(child, here)).max().unwrap_or(here)
}

fn children(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(fields) => fields.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => vec![],
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// The root and members that a tree spells when it is a path with a free root.
pub(super) fn as_path(expression: &IdedExpr, bound: &[String]) -> Option<(String, Vec<Segment>)> {
    match &expression.expr {
        Expr::Ident(name) if !name.starts_with(['@', '.']) && !TYPES.contains(&name.as_str()) => {
            (!bound.contains(name)).then(|| (name.clone(), vec![]))
        }
        Expr::Select(select) if !select.test => {
            let (root, mut segments) = as_path(&select.operand, bound)?;
            segments.push(Segment::Key(select.field.as_str().into()));
            Some((root, segments))
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            let segment = match &call.args[1].expr {
                Expr::Literal(LiteralValue::String(key)) => Segment::Key(key.inner().into()),
                Expr::Literal(LiteralValue::Int(index)) => Segment::Index(usize::try_from(*index.inner()).ok()?),
                _ => return None,
            };
            let (root, mut segments) = as_path(&call.args[0], bound)?;
            segments.push(segment);
            Some((root, segments))
        }
        _ => None,
    }
}

/// A place of the program that is filled from the scope.
#[derive(PartialEq)]
pub(super) enum Slot {
    /// What lies at the end of a path.
    Value(Path),
    /// Whether the member exists below the path.
    Presence(Path, Segment),
}

/// Rewrites a tree, collecting what it is filled with.
#[derive(Default)]
pub(super) struct Compiler {
    pub(super) slots: Vec<Slot>,
    pub(super) patterns: Vec<regex::Regex>,
    bound: Vec<String>,
}

impl Compiler {
    fn slot(&mut self, slot: Slot) -> Expr {
        let place = self.slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        Expr::Ident(format!("@{place}"))
    }

    /// Rewrites a tree and everything below it.
    pub(super) fn rewrite(&mut self, tree: &mut IdedExpr) -> Result<(), ExpressionError> {
        if let Some((root, segments)) = as_path(tree, &self.bound) {
            tree.expr = self.slot(Slot::Value(Path::new(&root, segments)?));
            return Ok(());
        }
        match &mut tree.expr {
            Expr::Select(select) if select.test => {
                if let Some((root, mut segments)) = as_path(&select.operand, &self.bound) {
                    segments.push(Segment::Key(select.field.as_str().into()));
                    let path = Path::new(&root, segments)?;
                    if let Some((parent, last)) = path.split_last() {
                        tree.expr = self.slot(Slot::Presence(parent, last));
                        return Ok(());
                    }
                    return Err(ExpressionError::new("has() asks for a member, as in has(input.text)"));
                }
                self.rewrite(&mut select.operand)
            }
            Expr::Select(select) => self.rewrite(&mut select.operand),
            Expr::Call(call) => self.rewrite_call(call),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.rewrite(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.rewrite(&mut entry.key)?;
                    self.rewrite(&mut entry.value)
                }
                EntryExpr::StructField(_) => Err(ExpressionError::new("a map's entry is 'key: value'")),
            }),
            Expr::Comprehension(loops) => {
                self.rewrite(&mut loops.iter_range)?;
                self.rewrite(&mut loops.accu_init)?;
                wrap(&mut loops.iter_range, ORDERED);
                self.bound.extend([loops.iter_var.clone(), loops.accu_var.clone()]);
                self.rewrite(&mut loops.loop_cond)?;
                self.rewrite(&mut loops.loop_step)?;
                self.rewrite(&mut loops.result)?;
                self.bound.truncate(self.bound.len().saturating_sub(2));
                Ok(())
            }
            Expr::Struct(message) => {
                Err(ExpressionError::new(format!("there is no type '{}' to construct", message.type_name)))
            }
            Expr::Ident(name) if name.starts_with('.') => {
                Err(ExpressionError::new(format!("write '{}' without the leading dot", &name[1..])))
            }
            Expr::Unspecified => Err(ExpressionError::new("a part of the expression is missing")),
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        }
    }

    fn rewrite_call(&mut self, call: &mut CallExpr) -> Result<(), ExpressionError> {
        let name = call.func_name.as_str();
        let is_operator = name.contains('_') && name.contains(|c: char| !c.is_alphanumeric() && c != '_');
        if !is_operator && !name.starts_with('@') {
            functions::check(name, call.target.is_some(), call.args.len()).map_err(ExpressionError::new)?;
        }
        if name == "matches" {
            return self.rewrite_matches(call);
        }
        if let Some(target) = &mut call.target {
            self.rewrite(target)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.rewrite(argument))?;
        if call.func_name == operators::ADD
            && let Some(right) = call.args.get_mut(1)
            && !matches!(right.expr, Expr::Literal(_) | Expr::List(_))
        {
            wrap(right, ADDEND);
        }
        Ok(())
    }

    /// Patterns are compiled once, so they must be written out.
    fn rewrite_matches(&mut self, call: &mut CallExpr) -> Result<(), ExpressionError> {
        let mut text = match call.target.take() {
            Some(target) => *target,
            None => call.args.remove(0),
        };
        self.rewrite(&mut text)?;
        let Some(IdedExpr { id, expr: Expr::Literal(LiteralValue::String(source)) }) = call.args.first() else {
            return Err(ExpressionError::new("the pattern of 'matches' must be written out as a text"));
        };
        let pattern = regex::RegexBuilder::new(source.inner())
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN)
            .build()
            .map_err(|error| ExpressionError::new(format!("the pattern of 'matches' is wrong: {error}")))?;
        self.patterns.push(pattern);
        let place = i64::try_from(self.patterns.len() - 1).unwrap_or_default();
        let place = IdedExpr { id: *id, expr: Expr::Literal(LiteralValue::Int(place.into())) };
        *call = CallExpr { func_name: MATCHES.to_owned(), target: None, args: vec![text, place] };
        Ok(())
    }
}

/// Puts a call of an own function around a tree.
fn wrap(tree: &mut IdedExpr, function: &str) {
    let id = tree.id;
    let call = CallExpr { func_name: function.to_owned(), target: None, args: vec![std::mem::take(tree)] };
    *tree = IdedExpr { id, expr: Expr::Call(call) };
}

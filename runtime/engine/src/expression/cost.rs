//! How much work an evaluation may be at most, from the syntax tree and the sizes of the values it reads.
//!
//! CEL always ends, but a chain of macros can double a text forty times or multiply two long lists. Everything here
//! is an upper bound in saturating arithmetic and takes time in proportion to the tree and the values. Never
//! evaluates. Used by the evaluator before every run of a program.

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::functions::{self, Growth};
use crate::value::Value;

/// Levels of nesting that are told apart; what lies deeper counts like the last level.
const LEVELS: usize = 6;
/// What a value costs besides its bytes.
const NODE: u64 = 4;

/// Bounds of one level of a value: the size of the largest thing there, and the most elements or bytes of one.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Level {
    size: u64,
    len: u64,
}

/// Bounds of a value: itself, its elements, their elements, and so on.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Shape([Level; LEVELS]);

impl Shape {
    /// A number, a boolean or null.
    const SCALAR: Self = {
        let mut levels = [Level { size: 0, len: 0 }; LEVELS];
        levels[0].size = NODE;
        Self(levels)
    };

    /// The bounds of a value, in one walk.
    pub(super) fn of(value: &Value) -> Self {
        let mut shape = Self::default();
        shape.measure(value, 0);
        shape
    }

    fn measure(&mut self, value: &Value, depth: usize) -> u64 {
        let (size, len) = match value {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Blob(_) => (NODE, 0),
            Value::String(text) => (NODE.saturating_add(text.len() as u64), text.len() as u64),
            Value::List(items) => {
                let below = items.iter().fold(NODE, |sum, item| sum.saturating_add(self.measure(item, depth + 1)));
                (below, items.len() as u64)
            }
            Value::Map(map) => {
                let entries = map.iter().map(|(key, value)| {
                    let key_size = NODE + key.len() as u64;
                    self.raise(depth + 1, Level { size: key_size, len: key.len() as u64 });
                    key_size.saturating_add(self.measure(value, depth + 1))
                });
                (entries.fold(NODE, u64::saturating_add), map.len() as u64)
            }
            Value::Tensor(tensor) => {
                let size = (tensor.count() as u64).saturating_mul(NODE).saturating_add(tensor.data().len() as u64);
                let len = tensor.shape().iter().copied().max().unwrap_or(1) as u64;
                let rows = tensor.rows().max(1) as u64;
                for below in depth + 1..=depth + tensor.shape().len() {
                    self.raise(below, Level { size: size / rows + NODE, len });
                }
                (size.saturating_add(NODE), len)
            }
        };
        self.raise(depth, Level { size, len });
        size
    }

    fn raise(&mut self, depth: usize, level: Level) {
        let slot = &mut self.0[depth.min(LEVELS - 1)];
        slot.size = slot.size.max(level.size);
        slot.len = slot.len.max(level.len);
    }

    fn text(bytes: u64) -> Self {
        let mut shape = Self::SCALAR;
        shape.0[0] = Level { size: bytes.saturating_add(NODE), len: bytes };
        shape
    }

    fn size(&self) -> u64 {
        self.0[0].size.max(NODE)
    }

    fn len(&self) -> u64 {
        self.0[0].len
    }

    /// The bounds of an element, a member or a key.
    fn element(&self) -> Self {
        let mut levels = [self.0[LEVELS - 1]; LEVELS];
        levels[..LEVELS - 1].copy_from_slice(&self.0[1..]);
        let mut shape = Self(levels);
        shape.0[0].size = shape.0[0].size.max(NODE);
        shape
    }

    /// The bounds of a list of `len` elements like this one.
    fn repeated(&self, len: u64) -> Self {
        let mut levels = [Level::default(); LEVELS];
        levels[1..].copy_from_slice(&self.0[..LEVELS - 1]);
        let last = &mut levels[LEVELS - 1];
        *last = Level { size: last.size.max(self.0[LEVELS - 1].size), len: last.len.max(self.0[LEVELS - 1].len) };
        levels[0] = Level { size: self.size().saturating_mul(len).saturating_add(NODE), len };
        Self(levels)
    }

    fn either(&self, other: &Self) -> Self {
        let mut shape = *self;
        other.0.iter().enumerate().for_each(|(depth, level)| shape.raise(depth, *level));
        shape
    }

    /// The bounds of both in one: texts or lists one after the other.
    fn joined(&self, other: &Self) -> Self {
        let mut shape = self.either(other);
        shape.0[0] =
            Level { size: self.size().saturating_add(other.size()), len: self.len().saturating_add(other.len()) };
        shape
    }

    /// The bounds after a step that turned `self` into `after` has been repeated `times`.
    fn grown(&self, after: &Self, times: u64) -> Self {
        let mut shape = self.either(after);
        let growth = |before: u64, after: u64| {
            after.saturating_sub(before).saturating_mul(times).saturating_add(before.max(after))
        };
        shape.0[0] = Level { size: growth(self.size(), after.size()), len: growth(self.len(), after.len()) };
        shape
    }
}

/// An upper bound of the work of evaluating a tree whose slots `@0`, `@1`, .. have the given bounds.
pub(super) fn estimate(tree: &IdedExpr, slots: &[Shape]) -> u64 {
    let mut walk = Walk { slots, bound: vec![], cost: 0, converted: vec![false; slots.len()], conversions: 0 };
    let result = walk.visit(tree);
    walk.cost.saturating_add(walk.conversions).saturating_add(result.size())
}

struct Walk<'a> {
    slots: &'a [Shape],
    bound: Vec<(&'a str, Shape)>,
    cost: u64,
    converted: Vec<bool>,
    conversions: u64,
}

impl<'a> Walk<'a> {
    fn charge(&mut self, units: u64) {
        self.cost = self.cost.saturating_add(units);
    }

    fn visit(&mut self, tree: &'a IdedExpr) -> Shape {
        self.charge(1);
        match &tree.expr {
            Expr::Literal(LiteralValue::String(text)) => Shape::text(text.inner().len() as u64),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Shape::text(bytes.inner().len() as u64),
            Expr::Literal(_) | Expr::Unspecified => Shape::SCALAR,
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let shape = self.visit(&select.operand);
                if select.test { Shape::SCALAR } else { shape.element() }
            }
            Expr::List(list) => {
                let mut element = Shape::default();
                let mut size = NODE;
                for item in &list.elements {
                    let shape = self.visit(item);
                    self.charge(shape.size());
                    size = size.saturating_add(shape.size());
                    element = element.either(&shape);
                }
                let mut shape = element.repeated(list.elements.len() as u64);
                shape.0[0].size = size;
                shape
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(fields) => self.map(fields.entries.iter().map(|entry| &entry.expr)),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(loops) => {
                let range = self.visit(&loops.iter_range);
                let initial = self.visit(&loops.accu_init);
                let outer = std::mem::take(&mut self.cost);
                self.bound.push((&loops.iter_var, range.element()));
                self.bound.push((&loops.accu_var, initial));
                self.visit(&loops.loop_cond);
                let after = self.visit(&loops.loop_step);
                // Each round binds a copy of the element; a list that grows is appended to in place.
                self.charge(range.element().size());
                let rounds = range.len().saturating_mul(self.cost);
                self.cost = outer.saturating_add(rounds);
                let grown = initial.grown(&after, range.len());
                self.bound.pop();
                self.bound.push((&loops.accu_var, grown));
                let result = self.visit(&loops.result);
                self.bound.truncate(self.bound.len().saturating_sub(2));
                self.charge(result.size());
                result
            }
        }
    }

    fn variable(&mut self, name: &str) -> Shape {
        if let Some((_, shape)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return *shape;
        }
        let slot = name.strip_prefix('@').and_then(|number| number.parse::<usize>().ok());
        match slot.and_then(|slot| Some((slot, *self.slots.get(slot)?))) {
            Some((slot, shape)) => {
                if !std::mem::replace(&mut self.converted[slot], true) {
                    self.conversions = self.conversions.saturating_add(shape.size());
                }
                shape
            }
            None => Shape::SCALAR,
        }
    }

    fn map(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Shape {
        let mut shape = Shape::SCALAR;
        for entry in entries {
            let (key, value) = match entry {
                EntryExpr::MapEntry(entry) => (self.visit(&entry.key), self.visit(&entry.value)),
                EntryExpr::StructField(field) => (Shape::text(field.field.len() as u64), self.visit(&field.value)),
            };
            let sizes = key.size().saturating_add(value.size());
            self.charge(sizes);
            let wrapped = key.either(&value).repeated(1);
            let size = shape.0[0].size.saturating_add(sizes);
            let len = shape.0[0].len.saturating_add(1);
            shape = shape.either(&wrapped);
            shape.0[0] = Level { size, len };
        }
        shape
    }

    fn call(&mut self, call: &'a CallExpr) -> Shape {
        let target = call.target.as_deref().map(|target| self.visit(target));
        let arguments: Vec<Shape> = call.args.iter().map(|argument| self.visit(argument)).collect();
        let all = || target.iter().chain(&arguments);
        let total = all().fold(0u64, |sum, shape| sum.saturating_add(shape.size()));
        let joined = all().fold(Shape::default(), |sum, shape| sum.joined(shape));
        match (call.func_name.as_str(), arguments.as_slice()) {
            (operators::CONDITIONAL, [_, then, otherwise]) => then.either(otherwise),
            (operators::INDEX, [container, _]) => container.element(),
            // Appending to the result of a macro copies only what is appended.
            (operators::ADD, [_, right]) if is_result(&call.args[0]) => {
                self.charge(right.size());
                joined
            }
            (operators::ADD, _) => {
                self.charge(total);
                joined
            }
            // Comparing values of different types copies both for a message that nobody sees.
            (operators::IN, [needle, list]) => {
                let each = needle.size().saturating_add(list.element().size());
                self.charge(total.saturating_add(list.len().saturating_mul(each)));
                Shape::SCALAR
            }
            ("@ordered", [range]) => {
                self.charge(range.len());
                *range
            }
            ("@addend", [right]) => *right,
            ("@matches", _) => {
                self.charge(total.saturating_mul(4));
                Shape::SCALAR
            }
            (name, rest) => match functions::find(name) {
                Some(function) => self.function(function.growth, target.unwrap_or(joined), rest, total),
                None => {
                    self.charge(total);
                    Shape::SCALAR
                }
            },
        }
    }

    fn function(&mut self, growth: Growth, receiver: Shape, arguments: &[Shape], total: u64) -> Shape {
        let first = arguments.first().copied().unwrap_or_default();
        self.charge(total);
        match growth {
            Growth::Scalar => Shape::SCALAR,
            Growth::Same => receiver,
            // The longest text of a number has about 330 digits.
            Growth::Text => Shape::text(total.saturating_add(350)),
            Growth::Search => {
                self.charge(receiver.len().saturating_mul(1 + first.len() / 16));
                Shape::SCALAR
            }
            Growth::Split => {
                let pieces = receiver.len().saturating_add(1);
                let mut shape = Shape::text(receiver.len()).repeated(pieces);
                shape.0[0].size = receiver.len().saturating_add(pieces.saturating_mul(NODE));
                self.charge(shape.size());
                shape
            }
            Growth::Join => {
                let bytes = receiver.size().saturating_add(receiver.len().saturating_mul(first.len()));
                self.charge(bytes);
                Shape::text(bytes)
            }
            Growth::Replace => {
                let to = arguments.get(1).copied().unwrap_or_default();
                let bytes = receiver.len().saturating_add(1).saturating_mul(to.len().saturating_add(1));
                self.charge(bytes);
                Shape::text(bytes)
            }
        }
    }
}

fn is_result(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name == "@result")
}

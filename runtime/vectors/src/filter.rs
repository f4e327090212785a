//! Metadata filters: the language of the Pinecone protocol, compiled once and matched against each vector.
//!
//! Never reads an index. A field that is missing fits `$ne` and `$nin`, as everything that is not equal does; numbers
//! compare exactly, whole or not; a list of strings fits `$eq` and `$in` when one of its members does. Used by every
//! index and by whoever turns a request into a query.

mod parse;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use motet_engine::failure::Failure;
use motet_engine::value::{Map, Value};

/// Deepest nesting of `$and` and `$or`.
pub const MAX_DEPTH: usize = 16;
/// Most conditions in one filter.
pub const MAX_CONDITIONS: usize = 1000;
/// Most values below all `$in` and `$nin` of one filter.
pub const MAX_LISTED: usize = 10_000;
/// Most bytes of field names and strings in one filter.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// A filter that has been checked. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    source: Value,
    condition: Arc<Condition>,
}

impl Filter {
    /// Reads a filter. A mistake is told with the JSON pointer to it.
    pub fn parse(source: &Value) -> Result<Self, Failure> {
        let condition = Arc::new(parse::condition(source)?);
        Ok(Self { source: source.clone(), condition })
    }

    /// Whether metadata fits.
    #[must_use]
    pub fn matches(&self, metadata: &Map) -> bool {
        self.condition.holds(metadata)
    }

    /// Whether there is no condition at all, so that everything fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&*self.condition, Condition::All(parts) if parts.is_empty())
    }

    /// The filter as it was given, for services that evaluate it themselves.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.source
    }
}

/// A tree of tests.
#[derive(Debug, PartialEq)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Field(Arc<str>, Test),
}

impl Condition {
    fn holds(&self, metadata: &Map) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(metadata)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(metadata)),
            Self::Field(name, test) => test.holds(metadata.get(name)),
        }
    }
}

/// What is asked of one field.
#[derive(Debug, PartialEq)]
enum Test {
    Equal(Scalar),
    NotEqual(Scalar),
    Compare(Comparison, Number),
    In(Listed),
    NotIn(Listed),
    Exists(bool),
}

impl Test {
    fn holds(&self, field: Option<&Value>) -> bool {
        match self {
            Self::Equal(scalar) => field.is_some_and(|value| scalar.equals(value)),
            Self::NotEqual(scalar) => !field.is_some_and(|value| scalar.equals(value)),
            Self::Compare(comparison, bound) => {
                field.and_then(Number::of).is_some_and(|number| comparison.holds(number.compare(*bound)))
            }
            Self::In(listed) => field.is_some_and(|value| listed.contains(value)),
            Self::NotIn(listed) => !field.is_some_and(|value| listed.contains(value)),
            Self::Exists(wanted) => field.is_some() == *wanted,
        }
    }
}

/// An order between numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

/// A value that a field can equal.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Text(Arc<str>),
    Number(Number),
    Truth(bool),
}

impl Scalar {
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(text), Value::String(other)) => text == other,
            (Self::Text(text), Value::List(items)) => items.iter().any(|item| item.as_str() == Some(text)),
            (Self::Number(number), other) => Number::of(other) == Some(*number),
            (Self::Truth(truth), Value::Bool(other)) => truth == other,
            _ => false,
        }
    }
}

/// The values below an `$in`.
#[derive(Debug, Default, PartialEq)]
struct Listed {
    texts: HashSet<Arc<str>>,
    numbers: HashSet<Number>,
    truths: [bool; 2],
}

impl Listed {
    fn add(&mut self, scalar: Scalar) {
        match scalar {
            Scalar::Text(text) => {
                self.texts.insert(text);
            }
            Scalar::Number(number) => {
                self.numbers.insert(number);
            }
            Scalar::Truth(truth) => self.truths[usize::from(truth)] = true,
        }
    }

    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.texts.contains(text),
            Value::List(items) => items.iter().any(|item| item.as_str().is_some_and(|text| self.texts.contains(text))),
            Value::Bool(truth) => self.truths[usize::from(*truth)],
            other => Number::of(other).is_some_and(|number| self.numbers.contains(&number)),
        }
    }
}

/// A finite number in the one form that equal numbers share: whole ones as integers where 64 bits hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Number {
    Whole(i64),
    /// The bits of a float that is no whole number of 64 bits.
    Other(u64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Whole(*number)),
            Value::Float(number) if number.is_finite() => Some(Self::of_float(*number)),
            _ => None,
        }
    }

    fn of_float(number: f64) -> Self {
        // 2^63 as a float is the first whole number that i64 cannot hold.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number) {
            Self::Whole(number as i64)
        } else {
            Self::Other(number.to_bits())
        }
    }

    fn as_float(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Other(bits) => f64::from_bits(bits),
        }
    }

    fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => left.cmp(&right),
            // A float with a fraction lies below 2^53, and a larger integer rounds to its own side of it. Only 2^63,
            // which is no i64, can meet a rounded integer, and that one is smaller.
            (Self::Whole(_), Self::Other(_)) => self.as_float().total_cmp(&other.as_float()).then(Ordering::Less),
            (Self::Other(_), Self::Whole(_)) => self.as_float().total_cmp(&other.as_float()).then(Ordering::Greater),
            (Self::Other(_), Self::Other(_)) => self.as_float().total_cmp(&other.as_float()),
        }
    }
}

#[cfg(test)]
mod tests;

//! Reads filters from values, with a pointer to every mistake and bounds on depth and size.
//!
//! Never evaluates. Used by `Filter::parse` alone.

use std::fmt::Write as _;
use std::sync::Arc;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::{Map, Value};

use super::{
    Comparison, Condition, Listed, MAX_CONDITIONS, MAX_DEPTH, MAX_LISTED, MAX_TEXT_BYTES, Number, Scalar, Test,
};

const FIELD_OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists";

/// Reads a whole filter.
pub(super) fn condition(source: &Value) -> Result<Condition, Failure> {
    Parser { path: Vec::new(), depth: 0, conditions: 0, listed: 0, text_bytes: 0 }.map(source)
}

/// Where the reading stands and how much it has seen.
struct Parser {
    path: Vec<String>,
    depth: usize,
    conditions: usize,
    listed: usize,
    text_bytes: usize,
}

impl Parser {
    fn map(&mut self, value: &Value) -> Result<Condition, Failure> {
        let Value::Map(map) = value else {
            return Err(self.mistake(&format!("expected a map of conditions, found {}", value.kind())));
        };
        let mut parts = Vec::with_capacity(map.len().min(MAX_CONDITIONS));
        for (key, below) in map.iter() {
            self.path.push(key.to_string());
            match &**key {
                "$and" => parts.push(Condition::All(self.list(below)?)),
                "$or" => parts.push(Condition::Any(self.list(below)?)),
                operator if operator.starts_with('$') => {
                    let what = if FIELD_OPERATORS.split(", ").any(|known| known == operator) {
                        format!("'{operator}' must stand below a field name")
                    } else {
                        format!("unknown operator '{operator}'; conditions combine with $and and $or")
                    };
                    return Err(self.mistake(&what));
                }
                _ => self.field(key, below, &mut parts)?,
            }
            self.path.pop();
        }
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        Ok(Condition::All(parts))
    }

    /// The members of an `$and` or `$or`.
    fn list(&mut self, value: &Value) -> Result<Vec<Condition>, Failure> {
        let items = match value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) => return Err(self.mistake("the list is empty; it needs at least one condition")),
            other => return Err(self.mistake(&format!("expected a list of conditions, found {}", other.kind()))),
        };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.mistake(&format!("$and and $or are nested deeper than {MAX_DEPTH}")));
        }
        let mut parts = Vec::with_capacity(items.len().min(MAX_CONDITIONS));
        for (position, item) in items.iter().enumerate() {
            self.path.push(position.to_string());
            self.count_condition()?;
            parts.push(self.map(item)?);
            self.path.pop();
        }
        self.depth -= 1;
        Ok(parts)
    }

    /// What stands below a field name: a value, or operators.
    fn field(&mut self, name: &Arc<str>, value: &Value, parts: &mut Vec<Condition>) -> Result<(), Failure> {
        self.count_text(name)?;
        let Value::Map(operators) = value else {
            self.count_condition()?;
            let scalar = self.scalar(value, "a field equals")?;
            parts.push(Condition::Field(Arc::clone(name), Test::Equal(scalar)));
            return Ok(());
        };
        self.operators(name, operators, parts)
    }

    fn operators(&mut self, name: &Arc<str>, operators: &Map, parts: &mut Vec<Condition>) -> Result<(), Failure> {
        if operators.is_empty() {
            return Err(self.mistake(&format!("the map is empty; it needs one of {FIELD_OPERATORS}")));
        }
        for (operator, operand) in operators {
            self.path.push(operator.to_string());
            self.count_condition()?;
            let test = self.test(operator, operand)?;
            parts.push(Condition::Field(Arc::clone(name), test));
            self.path.pop();
        }
        Ok(())
    }

    fn test(&mut self, operator: &str, operand: &Value) -> Result<Test, Failure> {
        Ok(match operator {
            "$eq" => Test::Equal(self.scalar(operand, "$eq takes")?),
            "$ne" => Test::NotEqual(self.scalar(operand, "$ne takes")?),
            "$gt" => Test::Compare(Comparison::Greater, self.number(operand)?),
            "$gte" => Test::Compare(Comparison::GreaterOrEqual, self.number(operand)?),
            "$lt" => Test::Compare(Comparison::Less, self.number(operand)?),
            "$lte" => Test::Compare(Comparison::LessOrEqual, self.number(operand)?),
            "$in" => Test::In(self.listed(operand)?),
            "$nin" => Test::NotIn(self.listed(operand)?),
            "$exists" => match operand {
                Value::Bool(wanted) => Test::Exists(*wanted),
                other => return Err(self.mistake(&format!("$exists takes true or false, found {}", other.kind()))),
            },
            "$and" | "$or" => {
                return Err(self.mistake(&format!("'{operator}' combines whole conditions; put it above the field")));
            }
            unknown if unknown.starts_with('$') => {
                return Err(self.mistake(&format!("unknown operator '{unknown}'; known are {FIELD_OPERATORS}")));
            }
            _ => return Err(self.mistake("metadata has no nested fields; expected an operator such as $eq")),
        })
    }

    fn scalar(&mut self, value: &Value, who: &str) -> Result<Scalar, Failure> {
        match value {
            Value::String(text) => {
                self.count_text(text)?;
                Ok(Scalar::Text(Arc::clone(text)))
            }
            Value::Bool(truth) => Ok(Scalar::Truth(*truth)),
            Value::Int(_) | Value::Float(_) => self.number(value).map(Scalar::Number),
            other => Err(self.mistake(&format!("{who} a string, a number, true or false, found {}", other.kind()))),
        }
    }

    fn number(&self, value: &Value) -> Result<Number, Failure> {
        Number::of(value).ok_or_else(|| {
            let found = if matches!(value, Value::Float(_)) { "one that is not finite" } else { value.kind() };
            self.mistake(&format!("expected a number, found {found}"))
        })
    }

    fn listed(&mut self, value: &Value) -> Result<Listed, Failure> {
        let Value::List(items) = value else {
            return Err(self.mistake(&format!("expected a list, found {}", value.kind())));
        };
        self.listed += items.len();
        if self.listed > MAX_LISTED {
            return Err(self.mistake(&format!("more than {MAX_LISTED} values below $in and $nin")));
        }
        let mut listed = Listed::default();
        for (position, item) in items.iter().enumerate() {
            self.path.push(position.to_string());
            listed.add(self.scalar(item, "the list takes")?);
            self.path.pop();
        }
        Ok(listed)
    }

    fn count_condition(&mut self) -> Result<(), Failure> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(self.mistake(&format!("the filter has more than {MAX_CONDITIONS} conditions")));
        }
        Ok(())
    }

    fn count_text(&mut self, text: &str) -> Result<(), Failure> {
        self.text_bytes += text.len();
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(self.mistake(&format!("the filter has more than {MAX_TEXT_BYTES} bytes of text")));
        }
        Ok(())
    }

    /// A failure with the JSON pointer (RFC 6901) to where the reading stands.
    fn mistake(&self, what: &str) -> Failure {
        let mut pointer = String::new();
        for part in &self.path {
            let part: String = part.chars().take(80).collect();
            let _ = write!(pointer, "/{}", part.replace('~', "~0").replace('/', "~1"));
        }
        let place = if pointer.is_empty() { "at its top".to_owned() } else { format!("at {pointer}") };
        Failure::new(FailureClass::Invalid, format!("filter, {place}: {what}"))
    }
}

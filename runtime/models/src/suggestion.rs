//! What was probably meant by a name that is not known.
//!
//! Used wherever a user's name is looked up.

/// Likeness of names, from 0 to 1, from which one is offered in place of the other.
const LEAST_SIMILARITY: f64 = 0.7;

/// `, did you mean 'x'?` for the nearest known name, or nothing when none is near.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // Comparing costs the product of the lengths, and a name may come from outside.
    let short: String = name.chars().take(100).collect();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&short, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| format!(", did you mean '{candidate}'?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(suggestion("txet", ["text", "vector"]), ", did you mean 'text'?");
        assert_eq!(suggestion("quantity", ["text"]), "");
    }
}

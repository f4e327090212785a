//! Text to a sparse row of weights: words, pairs of words and pieces of words, hashed into a fixed number of buckets.
//!
//! A pure function without tables, clock or randomness: training and inference share it, so a trained file stays
//! valid only as long as [`VERSION`] stays. It never computes anything that rounds differently on another machine
//! (no logarithms, only sums, divisions and square roots). Used by `text_classifier` and by the training program.
//!
//! The recipe, version 1:
//! 1. cut the text at [`MAX_TEXT_BYTES`], on a character border;
//! 2. lower case; apostrophes vanish; every other character that is neither letter nor digit separates words; words
//!    are cut at [`MAX_WORD_CHARS`] characters;
//! 3. each word gives one feature of weight 1; each two neighbours give one of weight 0.6; each word of at least two
//!    characters, written `<word>`, gives its pieces of 3, 4 and 5 characters, which share a weight of 1.2 evenly in
//!    the Euclidean sense, so that long words do not count more;
//! 4. the bucket of a feature is FNV-1a (64 bits) over a letter for its kind (`w`, `b`, `c`), its characters in UTF-8
//!    (a space between the two words of a pair), folded by the number of buckets;
//! 5. weights that meet in a bucket are added, then the square root is taken (a word said four times counts twice),
//!    and the row is scaled to length 1.

/// Name of the recipe; changes whenever the same text could give another row.
pub const VERSION: u32 = 1;

/// Text beyond this many bytes is not looked at, so that one call cannot cost more than a few milliseconds.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Characters of a word beyond this are not looked at.
pub const MAX_WORD_CHARS: usize = 32;

const WORD_WEIGHT: f32 = 1.0;
const PAIR_WEIGHT: f32 = 0.6;
const PIECES_WEIGHT: f32 = 1.2;
const PIECE_CHARS: std::ops::RangeInclusive<usize> = 3..=5;

/// One text as a sparse row: bucket numbers, ascending and each once, with their weights. Of length 1, or empty for a
/// text without letters and digits.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FeatureRow {
    /// Bucket numbers, ascending.
    pub buckets: Vec<u32>,
    /// The weight of each bucket, in the same order.
    pub weights: Vec<f32>,
}

impl FeatureRow {
    /// Turns a text into a row of `buckets` buckets; 0 buckets count as 1.
    #[must_use]
    pub fn from_text(text: &str, buckets: u32) -> Self {
        Self::from_words(&words(text), buckets)
    }

    /// Turns words as [`words`] gives them into a row; 0 buckets count as 1.
    #[must_use]
    pub fn from_words(words: &[String], buckets: u32) -> Self {
        let mut found = Vec::with_capacity(words.len() * 24);
        for (position, word) in words.iter().enumerate() {
            found.push((bucket(b'w', &[word], buckets), WORD_WEIGHT));
            if let Some(next) = words.get(position + 1) {
                found.push((bucket(b'b', &[word, " ", next], buckets), PAIR_WEIGHT));
            }
            push_pieces(word, buckets, &mut found);
        }
        // A stable sort keeps the order in which equal buckets are added: sums come out the same everywhere.
        found.sort_by_key(|&(bucket, _)| bucket);
        let mut row = Self::default();
        for (bucket, weight) in found {
            match (row.buckets.last(), row.weights.last_mut()) {
                (Some(&last), Some(sum)) if last == bucket => *sum += weight,
                _ => {
                    row.buckets.push(bucket);
                    row.weights.push(weight);
                }
            }
        }
        // The square root of each weight, divided by the length of the row of square roots.
        let length = row.weights.iter().sum::<f32>().sqrt();
        for weight in &mut row.weights {
            *weight = weight.sqrt() / length;
        }
        row
    }
}

/// The words of a text as step 1 and 2 of the recipe make them.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = 0;
    for character in cut(text).chars().flat_map(char::to_lowercase) {
        if character.is_alphanumeric() {
            if chars < MAX_WORD_CHARS {
                word.push(character);
            }
            chars += 1;
        } else if !matches!(character, '\'' | '\u{2019}') && chars > 0 {
            words.push(std::mem::take(&mut word));
            chars = 0;
        }
    }
    if chars > 0 {
        words.push(word);
    }
    words
}

/// The beginning of a text up to [`MAX_TEXT_BYTES`], cut on a character border.
#[must_use]
pub fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or(text)
}

fn push_pieces(word: &str, buckets: u32, found: &mut Vec<(u32, f32)>) {
    let framed: String = ["<", word, ">"].concat();
    let borders: Vec<usize> = framed.char_indices().map(|(at, _)| at).chain([framed.len()]).collect();
    let chars = borders.len() - 1;
    if chars < 4 {
        return;
    }
    let count: usize = PIECE_CHARS.map(|size| (chars + 1).saturating_sub(size)).sum();
    // Each weight is a square root's argument later on: `1.2 / count` makes the pieces of any word weigh the same.
    let weight = PIECES_WEIGHT / count as f32;
    for size in PIECE_CHARS {
        for ends in borders.windows(size + 1) {
            found.push((bucket(b'c', &[&framed[ends[0]..ends[size]]], buckets), weight));
        }
    }
}

/// FNV-1a, 64 bits, by its published offset and prime.
fn bucket(kind: u8, parts: &[&str], buckets: u32) -> u32 {
    let mut hash = (0xcbf2_9ce4_8422_2325_u64 ^ u64::from(kind)).wrapping_mul(0x0100_0000_01b3);
    for byte in parts.iter().flat_map(|part| part.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The high half is folded in: FNV's low bits alone are its weaker ones.
    ((hash ^ (hash >> 32)) % u64::from(buckets.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs_of_letters_and_digits() {
        let cases: [(&str, &[&str]); 5] = [
            ("Can't log-in!", &["cant", "log", "in"]),
            ("", &[]),
            ("?! \u{0}", &[]),
            ("E-204: ÉCOLE", &["e", "204", "école"]),
            ("it\u{2019}s 東京", &["its", "東京"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text:?}");
        }
        assert_eq!(words(&"a".repeat(40)), ["a".repeat(MAX_WORD_CHARS)]);
    }

    #[test]
    fn hashes_are_the_published_ones() {
        // FNV-1a of "a" is af63dc4c8601ec8c; its halves are then folded together.
        assert_eq!(
            bucket(b'a', &[], u32::MAX),
            ((0xaf63_dc4c_8601_ec8c_u64 ^ 0xaf63_dc4c) % u64::from(u32::MAX)) as u32
        );
    }

    #[test]
    fn rows_stay_as_trained_models_know_them() {
        // The numbers come from a second implementation of the recipe, in another language.
        let row = FeatureRow::from_text("Hub offline", 6144);
        let hash = |row: &FeatureRow| {
            row.buckets.iter().zip(&row.weights).fold(0u64, |hash, (&bucket, weight)| {
                let weight = (weight * 1e4).round() as u64;
                hash.wrapping_mul(1_000_003).wrapping_add(u64::from(bucket)).wrapping_mul(1_000_003) ^ weight
            })
        };
        assert_eq!((row.buckets.len(), hash(&row)), (27, 7_909_222_490_300_381_065));
        let row = FeatureRow::from_text("The hub the HUB the hub: grün, it's 21°C", 6144);
        assert_eq!((row.buckets.len(), hash(&row)), (42, 2_606_442_791_308_669_202));
    }

    #[test]
    fn rows_are_sorted_scaled_and_bounded() {
        let text = "word and another ".repeat(100_000);
        let row = FeatureRow::from_text(&text, 512);
        assert!(row.buckets.is_sorted_by(|a, b| a < b) && row.buckets.len() <= 512);
        assert!((row.weights.iter().map(|w| w * w).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(row, FeatureRow::from_text(cut(&text), 512));
        assert_eq!(FeatureRow::from_text("--", 512), FeatureRow::default());
        assert_eq!(FeatureRow::from_text("one", 0).buckets, [0]);
    }
}

//! Long texts into pieces that an embedding model can read whole: about 120 words, cut where paragraphs and sentences
//! end, each beginning with the last sentence of the one before.
//!
//! Never cuts inside a word and never loses one. Used for the user's own files.

/// Words of a piece, about.
pub(crate) const WORDS: usize = 120;
/// Words of the sentence that is told again, at most: a longer one would fill the next piece.
const OVERLAP: usize = 40;

/// The pieces of a text; none for a text without words.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece: Vec<&str> = Vec::new();
    let mut words = 0;
    // Whether the piece holds anything that the one before does not.
    let mut is_fresh = false;
    for sentence in sentences(text) {
        let length = sentence.split_whitespace().count();
        if is_fresh && words + length > WORDS {
            pieces.push(piece.join(" "));
            let last = piece.last().copied().filter(|last| last.split_whitespace().count() <= OVERLAP);
            piece = last.into_iter().collect();
            words = piece.iter().map(|sentence| sentence.split_whitespace().count()).sum();
        }
        piece.push(sentence);
        words += length;
        is_fresh = true;
    }
    if is_fresh {
        pieces.push(piece.join(" "));
    }
    pieces
}

/// The sentences of a text; one that is longer than a piece is cut between words.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut start = 0;
        let mut words = 0;
        let mut before = ' ';
        for (at, character) in paragraph.char_indices() {
            let is_end = character.is_whitespace() && matches!(before, '.' | '!' | '?' | ':' | ';');
            if character.is_whitespace() && !before.is_whitespace() {
                words += 1;
            }
            if is_end || (character.is_whitespace() && words >= WORDS) {
                push(&mut found, &paragraph[start..at]);
                (start, words) = (at, 0);
            }
            before = character;
        }
        push(&mut found, &paragraph[start..]);
    }
    found
}

fn push<'t>(found: &mut Vec<&'t str>, sentence: &'t str) {
    let sentence = sentence.trim();
    if !sentence.is_empty() {
        found.push(sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_sentences_and_overlap_by_one() {
        let sentence = |n: usize| format!("Sentence number {n} has exactly these eight words here.");
        let text: String = (0..40).map(|n| sentence(n) + if n % 7 == 6 { "\n\n" } else { " " }).collect();
        let pieces = split(&text);
        assert!(pieces.len() > 2);
        for pair in pieces.windows(2) {
            let last = pair[0].rsplit_once("Sentence").unwrap().1;
            assert!(pair[1].starts_with(&format!("Sentence{last}")), "{pair:?}");
            assert!(pair[0].split_whitespace().count() <= WORDS);
        }
        for n in 0..40 {
            assert!(pieces.iter().any(|piece| piece.contains(&sentence(n))), "{n}");
        }
    }

    #[test]
    fn any_text_is_split() {
        assert_eq!(split(" \n\n "), Vec::<String>::new());
        assert_eq!(split("One. Two."), ["One. Two."]);
        let endless = "word ".repeat(500);
        let pieces = split(&endless);
        let words: usize = pieces.iter().map(|piece| piece.split_whitespace().count()).sum();
        assert_eq!(words, 500);
    }
}

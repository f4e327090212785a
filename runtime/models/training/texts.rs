//! The texts to learn from and the variants made of them: cut, misspelt, reworded.
//!
//! Reads the sample corpus and this folder's own texts; tickets and held-out texts are only ever read for the
//! evaluation. Used by the training program.

use std::fs;
use std::path::Path;

use motet_models::burn::features;
use serde::Deserialize;

use crate::random::Random;

/// An article of the sample corpus.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Article {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) category: String,
    pub(crate) text: String,
}

/// A short text with the truth about it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Labelled {
    pub(crate) text: String,
    pub(crate) category: String,
    #[serde(default)]
    pub(crate) article: Option<String>,
}

/// Reads one JSON document per line.
pub(crate) fn read_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<T>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| serde_json::from_str(line).map_err(|e| format!("{}:{}: {e}", path.display(), at + 1)))
        .collect()
}

/// What a person might write in place of a word; each line is one meaning.
const SYNONYMS: [&[&str]; 40] = [
    &["invoice", "bill"],
    &["hub", "gateway", "box"],
    &["sensor", "device", "sense", "unit"],
    &["delete", "remove", "erase", "wipe"],
    &["buy", "purchase", "order"],
    &["phone", "mobile", "smartphone"],
    &["parcel", "package", "delivery", "shipment"],
    &["password", "passphrase", "pw"],
    &["login", "log in", "sign in", "logon"],
    &["email", "mail", "e mail"],
    &["broken", "defective", "dead", "faulty"],
    &["refund", "money back", "reimbursement"],
    &["cancel", "terminate", "end", "stop"],
    &["wifi", "wlan", "wireless", "wi fi"],
    &["colleague", "coworker", "teammate", "employee"],
    &["plan", "subscription", "package", "tier"],
    &["charged", "billed", "debited"],
    &["configure", "set up", "setup", "install"],
    &["company", "firm", "business", "organisation"],
    &["data", "measurements", "readings", "values"],
    &["alert", "alarm", "warning", "notification"],
    &["console", "website", "dashboard", "web page"],
    &["app", "application"],
    &["download", "export", "get"],
    &["change", "update", "edit", "modify"],
    &["price", "cost", "fee"],
    &["show", "display"],
    &["screen", "display"],
    &["user", "member", "person"],
    &["token", "key"],
    &["chart", "graph", "curve"],
    &["request", "call", "query"],
    &["offline", "disconnected", "not reachable"],
    &["fails", "does not work", "is not working"],
    &["owner", "administrator", "boss"],
    &["limit", "maximum", "quota"],
    &["contract", "agreement"],
    &["history", "past values", "old data"],
    &["power supply", "charger", "adapter"],
    &["lost", "missing", "gone"],
];

const OPENINGS: [&str; 20] = [
    "hi",
    "hello",
    "hello team",
    "good morning",
    "please help",
    "question",
    "i would like to know",
    "how do i",
    "how can we",
    "is it possible to",
    "what do i have to do",
    "can you tell me",
    "we have a problem",
    "it seems that",
    "since yesterday",
    "my colleague says",
    "could you please",
    "urgent",
    "i want to",
    "why",
];

const CLOSINGS: [&str; 12] = [
    "thanks",
    "thank you",
    "please help",
    "what should i do",
    "how does that work",
    "best regards",
    "is this normal",
    "any idea",
    "we need this today",
    "where do i find that",
    "please advise",
    "it is not clear to me",
];

/// A variant of a short text as a hurried person would write it, as words.
pub(crate) fn reworded(text: &str, random: &mut Random) -> Vec<String> {
    let mut text = format!(" {} ", features::words(text).join(" "));
    for meaning in SYNONYMS {
        for from in meaning {
            if random.chance(0.3) && text.contains(&format!(" {from} ")) {
                if let Some(to) = random.pick(meaning) {
                    text = text.replacen(&format!(" {from} "), &format!(" {to} "), 1);
                }
                break;
            }
        }
    }
    if random.chance(0.4) {
        text = format!("{} {text}", random.pick(&OPENINGS).copied().unwrap_or_default());
    }
    if random.chance(0.25) {
        text = format!("{text} {}", random.pick(&CLOSINGS).copied().unwrap_or_default());
    }
    let words = features::words(&text);
    let few = words.len() < 4;
    let kept = words.into_iter().filter(|_| few || !random.chance(0.12)).collect::<Vec<_>>();
    kept.into_iter().map(|word| if random.chance(0.06) { misspelt(&word, random) } else { word }).collect()
}

/// Some neighbouring sentences of an article, now and then with its title, as words.
pub(crate) fn cropped(article: &Article, random: &mut Random) -> Vec<String> {
    let sentences: Vec<&str> = article.text.split_inclusive(['.', '?', ';']).collect();
    let length = 1 + random.below(sentences.len());
    let from = random.below(sentences.len() - length + 1);
    let title = if random.chance(0.7) { article.title.as_str() } else { "" };
    let words = features::words(&format!("{title} {}", sentences[from..from + length].concat()));
    words.into_iter().filter(|_| !random.chance(0.1)).collect()
}

/// One sentence of an article, as words.
pub(crate) fn sentence(article: &Article, random: &mut Random) -> Vec<String> {
    let sentences: Vec<&str> = article.text.split_inclusive(['.', '?', ';']).collect();
    features::words(random.pick(&sentences).copied().unwrap_or_default())
}

/// A word with one slip of the fingers; short words stay as they are.
fn misspelt(word: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    if letters.len() < 4 {
        return word.to_owned();
    }
    let at = 1 + random.below(letters.len() - 2);
    match random.below(4) {
        0 => letters.swap(at, at + 1),
        1 => {
            letters.remove(at);
        }
        2 => letters.insert(at, letters[at]),
        _ => letters[at] = char::from(b'a' + random.below(26) as u8),
    }
    letters.into_iter().collect()
}

//! What the demo reads: the sample support desk that the binary carries, or a folder of the user's own texts.
//!
//! Never writes. Used by the demo.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chunk;
use crate::cli::failure::{CliError, CliResult};

const ARTICLES: &str = include_str!("../../demo/articles.jsonl");
const TICKETS: &str = include_str!("../../demo/tickets.jsonl");
const QUESTIONS: &str = include_str!("../../demo/questions.jsonl");

/// Pieces that a folder may give.
const MAX_PIECES: usize = 20_000;
/// Bytes of one file.
const MAX_FILE: u64 = 4 << 20;
/// Folders inside folders.
const MAX_DEPTH: usize = 16;

/// A text that can be found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) id: String,
    pub(crate) title: String,
    /// Empty where it is not known.
    pub(crate) category: String,
    pub(crate) text: String,
}

/// A question, with its truth where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Which part of the desk it is for.
    #[serde(default)]
    pub(crate) category: Option<String>,
    /// The article that answers it.
    #[serde(default)]
    pub(crate) article: Option<String>,
}

/// Everything that one demo works on.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Name under which the documents are kept apart from others.
    pub(crate) collection: String,
    pub(crate) documents: Vec<Document>,
    /// Questions whose answers are shown.
    pub(crate) questions: Vec<Question>,
    /// Questions whose answers are counted.
    pub(crate) tickets: Vec<Question>,
    /// Files behind the documents; zero for the sample.
    pub(crate) files: usize,
}

impl Corpus {
    /// The sample support desk, with the user's questions where there are any.
    pub(crate) fn sample(asked: &[String]) -> CliResult<Self> {
        let questions = if asked.is_empty() { lines(QUESTIONS)? } else { own(asked) };
        Ok(Self {
            collection: "support-desk".to_owned(),
            documents: lines(ARTICLES)?,
            questions,
            tickets: lines(TICKETS)?,
            files: 0,
        })
    }

    /// A folder of `.txt` and `.md` files, with the user's questions.
    pub(crate) fn folder(folder: &Path, asked: &[String]) -> CliResult<Self> {
        if asked.is_empty() {
            return Err(CliError::usage("a folder of your own needs questions")
                .advise("motet demo --folder DIR --question 'What is ...?' (may be repeated)"));
        }
        let mut files = Vec::new();
        find(folder, 0, &mut files)?;
        let mut documents = Vec::new();
        for file in &files {
            documents.extend(read(folder, file)?);
            if documents.len() > MAX_PIECES {
                return Err(CliError::failed(format!(
                    "{} holds more than {MAX_PIECES} pieces of text",
                    folder.display()
                ))
                .advise("name a smaller folder"));
            }
        }
        if documents.is_empty() {
            return Err(CliError::failed(format!("{} holds no texts", folder.display()))
                .advise("the demo reads files that end in .txt or .md"));
        }
        let path = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
        let collection = format!("folder-{:016x}", fingerprint(path.to_string_lossy().as_bytes()));
        Ok(Self { collection, documents, questions: own(asked), tickets: vec![], files: files.len() })
    }
}

fn lines<T: serde::de::DeserializeOwned>(text: &str) -> CliResult<Vec<T>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn own(asked: &[String]) -> Vec<Question> {
    let question = |(place, text): (usize, &String)| Question {
        id: format!("Q-{}", place + 1),
        text: text.clone(),
        category: None,
        article: None,
    };
    asked.iter().enumerate().map(question).collect()
}

/// FNV-1a: tells folders apart in one data folder, nothing more.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> CliResult {
    let fail = |error| CliError::failed(format!("cannot read {}: {error}", folder.display()));
    let entries = fs::read_dir(folder).map_err(fail)?;
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| entry.map(|it| it.path())).collect::<Result<_, _>>().map_err(fail)?;
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        if hidden || path.is_symlink() {
            continue;
        } else if path.is_dir() && depth < MAX_DEPTH {
            find(&path, depth + 1, found)?;
        } else if matches!(ending.as_str(), "txt" | "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The pieces of one file. Its title is its first Markdown heading, else its name.
fn read(folder: &Path, file: &Path) -> CliResult<Vec<Document>> {
    let fail = |error| CliError::failed(format!("cannot read {}: {error}", file.display()));
    if fs::metadata(file).map_err(fail)?.len() > MAX_FILE {
        return Err(CliError::failed(format!("{} is larger than {} MiB", file.display(), MAX_FILE >> 20)));
    }
    let text = String::from_utf8_lossy(&fs::read(file).map_err(fail)?).into_owned();
    let id = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().replace('\\', "/");
    let heading = text.lines().find(|line| line.starts_with('#'));
    let title =
        heading.map(|line| line.trim_matches(['#', ' '])).filter(|title| !title.is_empty()).unwrap_or(&id).to_owned();
    // The title is told beside every piece, so the text need not say it again.
    let pieces = chunk::split(&heading.map_or_else(|| text.clone(), |heading| text.replacen(heading, "", 1)));
    let many = pieces.len() > 1;
    let document = |(place, text): (usize, String)| Document {
        id: if many { format!("{id}#{}", place + 1) } else { id.clone() },
        title: if many { format!("{title}, part {}", place + 1) } else { title.clone() },
        category: String::new(),
        text,
    };
    Ok(pieces.into_iter().enumerate().map(document).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sample_is_whole() {
        let corpus = Corpus::sample(&[]).unwrap();
        let articles: BTreeSet<&str> = corpus.documents.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(articles.len(), corpus.documents.len());
        assert!(articles.len() >= 100 && corpus.tickets.len() >= 100);
        assert_eq!(corpus.questions.len(), 8);
        for ticket in &corpus.tickets {
            assert!(ticket.article.as_deref().is_none_or(|article| articles.contains(article)), "{}", ticket.id);
        }
    }

    #[test]
    fn folders_give_pieces_with_titles_and_places() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("a.md"), "# The title\n\nShort text.").unwrap();
        fs::write(folder.path().join("sub/b.txt"), "One sentence of six words here. ".repeat(60)).unwrap();
        fs::write(folder.path().join("c.bin"), "no").unwrap();
        let asked = ["What?".to_owned()];
        let corpus = Corpus::folder(folder.path(), &asked).unwrap();
        assert_eq!((corpus.files, corpus.documents[0].title.as_str()), (2, "The title"));
        assert_eq!(corpus.documents[1].id, "sub/b.txt#1");
        assert!(corpus.documents.len() >= 4);
        assert!(Corpus::folder(folder.path(), &[]).is_err());
    }
}

//! Prompts.
/// A compiled prompt template.
#[derive(Debug)]
pub struct PromptTemplate;

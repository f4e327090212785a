//! Prompts.
use crate::failure::Failure;
use crate::value::Value;
/// A compiled prompt template.
#[derive(Debug)]
pub struct PromptTemplate;
impl PromptTemplate {
    /// Renders.
    pub fn render(&self, _: &Value) -> Result<String, Failure> {
        Ok(String::new())
    }
}

//! motet-models

//! motet-vectors

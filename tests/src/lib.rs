//! motet-tests

//! motet-actors

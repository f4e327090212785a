//! motet-config

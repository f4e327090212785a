//! motet-server
